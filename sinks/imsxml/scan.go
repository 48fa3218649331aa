package imsxml

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
)

// maxDepth is what libxml2 allows too. A real file is about six elements deep.
const maxDepth = 256

// maxExpanded bounds what all uses of entities in the file stand for, in bytes.
const maxExpanded = 1 << 20

func isSpace(char byte) bool { return char == ' ' || char == '\t' || char == '\r' || char == '\n' }

// scanner walks over a document once. Each of its methods that reads something begins at pos, and leaves pos behind that, or, when it
// reports false, where it is not well-formed.
type scanner struct {
	text string
	pos  int
	doc  *Document
	// open holds the names of the elements that are not closed yet, outermost first.
	open []string
	// attributes has the memory for those of the next tag.
	attributes []attribute
	// entities are those that the file declares, and what they stand for.
	entities map[string]string
	expanded int // bytes of them in what was read
	// read, if it is not nil, is told of each piece of markup or text.
	read func(piece string)
}

// document reads everything behind the XML declaration.
func (s *scanner) document() error {
	rooted := false
	for s.pos < len(s.text) {
		rest := s.text[s.pos:]
		began := s.pos
		inside := len(s.open) > 0
		ok, what := false, ""
		switch {
		case strings.HasPrefix(rest, "<!--"):
			ok, what = s.comment(), "a comment is not closed, or holds --"
		case strings.HasPrefix(rest, "<?"):
			ok, what = s.instruction(), "a processing instruction or the XML declaration is malformed"
		case strings.HasPrefix(rest, "<![CDATA[") && inside:
			ok, what = s.through("]]>"), "a CDATA section is not closed"
		case strings.HasPrefix(rest, "</") && inside:
			ok, what = s.endTag(), "an end tag is malformed, or does not match the start tag"
		case strings.HasPrefix(rest, "<!DOCTYPE") && !rooted && s.entities == nil:
			if ok, what = s.doctype(), "the DOCTYPE is not closed"; !ok && !openDoctype().MatchString(rest) {
				return fault(ErrUnsupported, s.text[:s.pos], "the file has a DOCTYPE that has more than entities of plain text (remove it)")
			}
		case rest[0] == '<' && (inside || !rooted):
			rooted = true
			ok, what = s.startTag(), "a start tag is malformed, or has an attribute twice"
		case inside:
			ok, what = s.characters(), "text holds an & that starts no reference, or ]]> (write &amp; or ]]&gt;)"
		default:
			ok, what = s.space(), "this must not stand outside of the root element"
		}
		if !ok {
			return fault(credential.ErrDamaged, s.text[:s.pos], what)
		}
		if s.read != nil {
			s.read(s.text[began:s.pos])
		}
	}
	if !rooted || len(s.open) > 0 {
		return fault(credential.ErrDamaged, s.text, "the file ends before its root element does")
	}
	return nil
}

const entityForm = `<!ENTITY\s+([A-Za-z_][\w.-]*)\s+(?:"([^"%&<\]\t\r\n]*)"|'([^'%&<\]\t\r\n]*)')\s*>`

// A DOCTYPE that declares nothing but entities of plain text, one such declaration, and a DOCTYPE that does not end.
var (
	doctype     = lazyregexp.New(`^<!DOCTYPE\s+[A-Za-z_][\w.-]*\s*(?:\[(?:\s|` + entityForm + `)*\]\s*)?>`)
	openDoctype = lazyregexp.New(`^<!DOCTYPE[^\[>]*(?:\[[^\]]*(?:\]\s*)?)?$`)
	entity      = lazyregexp.New(entityForm)
)

func (s *scanner) doctype() bool {
	found := doctype().FindString(s.text[s.pos:])
	s.entities = map[string]string{}
	for _, e := range slices.Backward(entity().FindAllStringSubmatch(found, -1)) { // of two of one name the first counts
		s.entities[e[1]] = e[2] + e[3]
		if predefined[e[1]] != "" {
			return false
		}
	}
	return found != "" && s.take(found)
}

func (s *scanner) comment() bool {
	return s.take("<!--") && s.through("--") && s.take(">")
}

func (s *scanner) instruction() bool {
	s.take("<?")
	target := s.name()
	if target == "" || strings.EqualFold(target, "xml") {
		return false
	}
	return s.take("?>") || s.space() && s.through("?>")
}

func (s *scanner) endTag() bool {
	last := len(s.open) - 1
	if !s.take("</" + s.open[last]) {
		return false
	}
	s.open = s.open[:last]
	s.space()
	return s.take(">")
}

// startTag reads a start tag or an empty-element tag.
func (s *scanner) startTag() bool {
	s.take("<")
	name := s.name()
	if name == "" || len(s.open) == maxDepth {
		return false
	}
	s.open = append(s.open, name)
	tag := startTag{attributes: s.attributes[:0]}
	for {
		tag.addAt = s.pos
		spaced := s.space()
		tag.empty = s.take("/>")
		if tag.empty || s.take(">") {
			break
		}
		if !spaced {
			return false
		}
		a, ok := s.attribute()
		if !ok {
			return false
		}
		a.start = tag.addAt
		tag.attributes = append(tag.attributes, a)
	}
	tag.end, s.attributes = s.pos, tag.attributes
	s.note(tag)
	if tag.empty {
		s.open = s.open[:len(s.open)-1]
	}
	return distinct(tag.attributes)
}

// attribute reads an attribute. It does not know the white space in front of it.
func (s *scanner) attribute() (a attribute, ok bool) {
	a.name = s.name()
	s.space()
	if a.name == "" || !s.take("=") {
		return a, false
	}
	s.space()
	a.quote = s.pos
	a.value, ok = s.value()
	a.end = s.pos
	return a, ok
}

// value reads a value with its quotes.
func (s *scanner) value() (value string, ok bool) {
	quote := s.pos
	if !s.take(`"`) && !s.take(`'`) {
		return "", false
	}
	length := strings.IndexByte(s.text[s.pos:], s.text[quote])
	if length < 0 {
		return "", false
	}
	value, ok = s.content(s.pos+length, "<")
	return value, ok && s.take(s.text[quote:quote+1])
}

// distinct reports whether no two attributes have the same name.
func distinct(attributes []attribute) bool {
	if len(attributes) < 2 {
		return true
	}
	names := make(map[string]bool, len(attributes))
	for _, a := range attributes {
		names[a.name] = true
	}
	return len(names) == len(attributes)
}

// note remembers the tag that was read if it is one of those looked for.
func (s *scanner) note(tag startTag) {
	if s.open[0] != "serverconf" && s.open[0] != "serverConf" {
		return
	}
	d, path := s.doc, s.open[1:]
	switch {
	case d.shared == nil && slices.Equal(path, []string{"shared"}):
		d.shared = new(tag)
	case d.ims == nil && slices.Equal(path, []string{"shared", "ims"}):
		tag.attributes = slices.Clone(tag.attributes)
		d.ims = new(tag)
	}
}

// characters reads text up to the next markup.
func (s *scanner) characters() bool {
	s.space()
	length := strings.IndexByte(s.text[s.pos:], '<')
	if length < 0 {
		length = len(s.text) - s.pos
	}
	_, ok := s.content(s.pos+length, "]]>")
	return ok
}

// content reads up to end, before which forbidden must not stand, and returns that with references replaced, and tabs and line ends as
// spaces.
func (s *scanner) content(end int, forbidden string) (text string, ok bool) {
	raw := s.text[s.pos:end]
	if at := strings.Index(raw, forbidden); at >= 0 {
		s.pos += at
		return "", false
	}
	if !strings.ContainsAny(raw, "&\t\r\n") {
		s.pos = end
		return raw, true
	}
	var b strings.Builder
	for s.pos < end {
		rest := s.text[s.pos:end]
		switch {
		case rest[0] == '&':
			name, _, closed := strings.Cut(rest[1:], ";")
			char, known := s.reference(name)
			if !closed || !known {
				return "", false
			}
			b.WriteString(char)
			s.pos += len(name) + 1
		case strings.HasPrefix(rest, "\r\n"):
			// One space, written for the \n.
		case isSpace(rest[0]):
			b.WriteByte(' ')
		default:
			b.WriteByte(rest[0])
		}
		s.pos++
	}
	return b.String(), true
}

var predefined = map[string]string{"amp": "&", "lt": "<", "gt": ">", "quot": `"`, "apos": "'"}

// reference returns what &name; stands for.
func (s *scanner) reference(name string) (text string, known bool) {
	if text, known = predefined[name]; known {
		return text, true
	}
	if text, known = s.entities[name]; known {
		s.expanded += len(text)
		return text, s.expanded <= maxExpanded
	}
	digits, numeric := strings.CutPrefix(name, "#")
	base := 10
	if hex, isHex := strings.CutPrefix(digits, "x"); isHex {
		digits, base = hex, 16
	}
	char, err := strconv.ParseUint(digits, base, 21)
	return string(rune(char)), numeric && err == nil && isXMLChar(rune(char))
}

// name reads a name; "" says that there is none. More than one colon is refused though XML 1.0 by itself allows it: no parser that
// knows namespaces takes such a name, and libxml2 stumbles over some.
func (s *scanner) name() string {
	name := s.text[s.pos:]
	for i, char := range name {
		if isNoNameChar(char) {
			name = name[:i]
			break
		}
	}
	if name == "" || strings.IndexByte("-.0123456789", name[0]) >= 0 || strings.Count(name, ":") > 1 {
		return ""
	}
	s.pos += len(name)
	return name
}

// isNoNameChar is true also for some characters outside ASCII that XML allows in names.
func isNoNameChar(char rune) bool {
	if char < utf8.RuneSelf {
		return !unicode.IsLetter(char) && !unicode.IsDigit(char) && strings.IndexByte("_:-.", byte(char)) < 0
	}
	return char < 0xc0 || !unicode.IsLetter(char)
}

// take reads a certain text.
func (s *scanner) take(text string) bool {
	taken := strings.HasPrefix(s.text[s.pos:], text)
	if taken {
		s.pos += len(text)
	}
	return taken
}

// through reads up to the next end, and that.
func (s *scanner) through(end string) bool {
	length := strings.Index(s.text[s.pos:], end)
	if length >= 0 {
		s.pos += length + len(end)
	}
	return length >= 0
}

// space reads white space, and reports whether there was any.
func (s *scanner) space() bool {
	before := s.pos
	for s.pos < len(s.text) && isSpace(s.text[s.pos]) {
		s.pos++
	}
	return s.pos > before
}
