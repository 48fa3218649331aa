package imsxml

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"

	"campaign-credsync/internal/credential"
)

// maxDepth is what libxml2 allows too. A real file is about six elements deep.
const maxDepth = 256

// scanner walks over a document once. Each of its methods that scans something starts at pos, and leaves pos behind
// what it scanned.
type scanner struct {
	data []byte
	pos  int
	doc  *Document
	// open holds the names of the elements that are not closed yet, outermost first.
	open []span
	// attributes are those of the tag scanned last; sorted is the same by name.
	attributes, sorted []attribute
	// inShared says that the child of the root that was opened last is a <shared>.
	inShared bool
}

// Parse checks that data is one well-formed XML document and finds <shared> and <ims>. It takes time in proportion to the
// length of data. Its error wraps [credential.ErrDamaged] and says line:column and what is wrong there; it quotes nothing from the
// file, as in a damaged one a piece of a password may well stand where a name should.
func Parse(data []byte) (*Document, error) {
	s := &scanner{data: data, doc: &Document{data: data}}
	for _, scan := range []func() error{s.declaration, s.characters, s.prolog, s.root, s.misc} {
		if err := scan(); err != nil {
			return nil, err
		}
	}
	if s.pos < len(data) {
		return nil, s.fault(s.pos, "something other than comments and white space follows the root element")
	}
	return s.doc, nil
}

// fault makes the error for what is wrong at offset.
func (s *scanner) fault(offset int, what string) error {
	line, column := s.position(offset)
	return fmt.Errorf("%w: %d:%d: %s", credential.ErrDamaged, line, column, what)
}

// position returns line and column of offset, both from 1. Columns count characters.
func (s *scanner) position(offset int) (line, column int) {
	before := bytes.TrimPrefix(s.data[:offset], []byte(utf8BOM))
	line = 1 + bytes.Count(before, []byte("\n"))
	before = before[bytes.LastIndexByte(before, '\n')+1:]
	if s.doc.charset.singleByte() {
		return line, 1 + len(before)
	}
	return line, 1 + utf8.RuneCount(before)
}

// root scans the root element with all that is in it.
func (s *scanner) root() error {
	if s.pos == len(s.data) {
		return s.fault(s.pos, "the file ends before the root element")
	}
	if s.data[s.pos] != '<' {
		return s.fault(s.pos, "text stands in front of the root element")
	}
	if err := s.startTag(); err != nil {
		return err
	}
	for len(s.open) > 0 {
		if err := s.content(); err != nil {
			return err
		}
	}
	return nil
}

// content scans text up to a piece of markup, and that.
func (s *scanner) content() error {
	if err := s.text(); err != nil {
		return err
	}
	rest := s.data[s.pos:]
	if len(rest) < 2 {
		return s.unclosed()
	}
	switch rest[1] {
	case '/':
		return s.endTag()
	case '?':
		return s.instruction()
	case '!':
		if bytes.HasPrefix(rest, []byte("<![CDATA[")) {
			return s.upTo("<![CDATA[", "]]>", "a CDATA section is not closed")
		}
		return s.comment()
	}
	return s.startTag()
}

// unclosed makes the error for a file that is cut off.
func (s *scanner) unclosed() error {
	line, column := s.position(s.open[len(s.open)-1].start - 1)
	return s.fault(len(s.data), fmt.Sprintf("the file ends inside the element that starts at %d:%d", line, column))
}

// text scans character data up to the next markup.
func (s *scanner) text() error {
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == '<' {
		return nil // mere indentation, the usual case
	}
	length := bytes.IndexByte(s.data[s.pos:], '<')
	if length < 0 {
		return s.unclosed()
	}
	text := s.data[s.pos : s.pos+length]
	if i := bytes.Index(text, []byte("]]>")); i >= 0 {
		return s.fault(s.pos+i, "]]> stands in text (write ]]&gt;)")
	}
	if err := s.references(text); err != nil {
		return err
	}
	s.pos += length
	return nil
}

// references checks those in text, which starts at pos.
func (s *scanner) references(text []byte) error {
	for i := 0; ; {
		next := bytes.IndexByte(text[i:], '&')
		if next < 0 {
			return nil
		}
		i += next
		_, size := s.doc.reference(text[i:])
		if size == 0 {
			return s.fault(s.pos+i, "an & starts neither a character reference nor an entity that is predefined or that the DOCTYPE declares "+
				"as short plain text (write &amp;, or the text that is meant)")
		}
		i += size
	}
}

// startTag scans a start tag or an empty-element tag.
func (s *scanner) startTag() error {
	start := s.pos
	if len(s.open) == maxDepth {
		return s.fault(start, fmt.Sprintf("elements are more than %d deep", maxDepth))
	}
	s.pos++
	name, err := s.name()
	if err != nil {
		return err
	}
	s.attributes = s.attributes[:0]
	for {
		lead := s.pos
		s.space()
		rest := s.data[s.pos:]
		switch {
		case len(rest) == 0:
			return s.fault(start, "a tag is not closed")
		case rest[0] == '>':
			s.pos++
			s.note(name, false)
			s.open = append(s.open, name)
			return s.distinct(start)
		case rest[0] == '/' && len(rest) > 1 && rest[1] == '>':
			s.pos += 2
			s.note(name, true)
			return s.distinct(start)
		case s.pos == lead:
			return s.fault(s.pos, "in a tag, white space or > is missing here")
		}
		if err := s.attribute(lead); err != nil {
			return err
		}
	}
}

// note remembers the tag that ends at pos if it is one of those looked for.
func (s *scanner) note(name span, selfClose bool) {
	text, d := name.of(s.data), s.doc
	found := tag{nameEnd: name.end, end: s.pos, selfClose: selfClose}
	switch len(s.open) {
	case 0:
		d.serverConf = string(text) == "serverconf" || string(text) == "serverConf"
	case 1:
		s.inShared = d.serverConf && string(text) == "shared"
		if s.inShared && !d.shared.found() {
			d.shared = found
		}
	case 2:
		if !s.inShared || string(text) != "ims" {
			return
		}
		if d.ims.found() {
			d.several = true
			return
		}
		d.ims = found
		d.imsAttributes = append([]attribute(nil), s.attributes...)
	}
}

// attribute scans one attribute; the white space in front of it starts at lead.
func (s *scanner) attribute(lead int) error {
	name, err := s.name()
	if err != nil {
		return err
	}
	s.space()
	if s.pos == len(s.data) || s.data[s.pos] != '=' {
		return s.fault(s.pos, "an attribute has no value")
	}
	s.pos++
	s.space()
	value, err := s.value()
	if err != nil {
		return err
	}
	s.attributes = append(s.attributes, attribute{lead: lead, name: name, value: value})
	return nil
}

// value scans a quoted value and returns where it stands between the quotes.
func (s *scanner) value() (span, error) {
	if s.pos == len(s.data) || s.data[s.pos] != '"' && s.data[s.pos] != '\'' {
		return span{}, s.fault(s.pos, "an attribute's value is not in quotes")
	}
	quote := s.data[s.pos]
	length := bytes.IndexByte(s.data[s.pos+1:], quote)
	if length < 0 {
		return span{}, s.fault(s.pos, "an attribute's value is not closed")
	}
	s.pos++
	inside := span{s.pos, s.pos + length}
	if i := bytes.IndexByte(inside.of(s.data), '<'); i >= 0 {
		return span{}, s.fault(s.pos+i, "a < stands in an attribute's value (write &lt;, or close the quote before it)")
	}
	if err := s.references(inside.of(s.data)); err != nil {
		return span{}, err
	}
	s.pos = inside.end + 1
	return inside, nil
}

// distinct checks that no attribute of the tag that starts at start is given twice.
func (s *scanner) distinct(start int) error {
	if len(s.attributes) < 2 {
		return nil
	}
	s.sorted = append(s.sorted[:0], s.attributes...)
	name := func(a attribute) []byte { return a.name.of(s.data) }
	slices.SortFunc(s.sorted, func(a, b attribute) int { return bytes.Compare(name(a), name(b)) })
	for i := range s.sorted[1:] {
		if bytes.Equal(name(s.sorted[i]), name(s.sorted[i+1])) {
			return s.fault(start, "an attribute is given twice in this tag")
		}
	}
	return nil
}

// endTag scans an end tag, which must close the element opened last.
func (s *scanner) endTag() error {
	start := s.pos
	s.pos += len("</")
	opened := s.open[len(s.open)-1]
	name := opened.of(s.data)
	if !bytes.HasPrefix(s.data[s.pos:], name) {
		return s.mismatch(start, opened)
	}
	s.pos += len(name)
	behindName := s.pos
	s.space()
	if s.pos == len(s.data) {
		return s.fault(start, "an end tag is not closed")
	}
	if s.data[s.pos] != '>' {
		if s.pos == behindName {
			return s.mismatch(start, opened)
		}
		return s.fault(s.pos, "something other than white space follows the name in an end tag")
	}
	s.pos++
	s.open = s.open[:len(s.open)-1]
	return nil
}

func (s *scanner) mismatch(start int, opened span) error {
	line, column := s.position(opened.start - 1)
	return s.fault(start, fmt.Sprintf("an end tag does not match the start tag at %d:%d", line, column))
}

// name scans a name. More than one colon is refused though XML 1.0 by itself allows it: no parser that knows namespaces
// takes such a name, and libxml2 stumbles over some.
func (s *scanner) name() (span, error) {
	length := s.doc.charset.nameLength(s.data[s.pos:])
	if length == 0 {
		return span{}, s.fault(s.pos, "a name is expected here")
	}
	name := span{s.pos, s.pos + length}
	if bytes.Count(name.of(s.data), []byte(":")) > 1 {
		return span{}, s.fault(s.pos, "a name has more than one colon")
	}
	s.pos = name.end
	return name, nil
}

// space skips white space and reports whether there was any.
func (s *scanner) space() bool {
	start := s.pos
	for s.pos < len(s.data) && isSpace[s.data[s.pos]] {
		s.pos++
	}
	return s.pos > start
}
