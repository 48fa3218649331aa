package imsxml

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
)

const utf8BOM = "\xef\xbb\xbf"

// declarationForm is the XML declaration. Versions above 1.0 are read as 1.0, as XML 1.0 has it.
var declarationForm = regexp.MustCompile(`^<\?xml\s+version\s*=\s*(?:"1\.[0-9]+"|'1\.[0-9]+')` +
	`(?:\s+encoding\s*=\s*("[^"]*"|'[^']*'))?(?:\s+standalone\s*=\s*(?:"yes"|"no"|'yes'|'no'))?\s*\?>`)

// declaration scans the byte order mark and the XML declaration, and so finds the encoding.
func (s *scanner) declaration() error {
	const saveAs = " (save the file as UTF-8, and declare that)"
	head := s.data[:min(len(s.data), 4)]
	switch {
	case len(head) == 0:
		return s.fault(0, "the file is empty")
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")),
		bytes.IndexByte(head, 0) >= 0 && bytes.IndexByte(head, '<') >= 0:
		return s.fault(0, "the file is in UTF-16 or UTF-32, which is not supported here"+saveAs)
	}
	bom := bytes.HasPrefix(s.data, []byte(utf8BOM))
	if bom {
		s.pos = len(utf8BOM)
	}
	rest := s.data[s.pos:]
	if !bytes.HasPrefix(rest, []byte("<?xml")) || len(rest) > 5 && !isSpace[rest[5]] && rest[5] != '?' {
		return nil // "<?xml-stylesheet" is an instruction like any other
	}
	found := declarationForm.FindSubmatchIndex(rest)
	if found == nil {
		return s.fault(s.pos, "the XML declaration is malformed")
	}
	if found[2] >= 0 {
		encoding, known := charsets[strings.ToLower(string(rest[found[2]+1:found[3]-1]))]
		if !known {
			return unsupported{s.fault(s.pos+found[2]+1, "the encoding is none of UTF-8, US-ASCII, ISO-8859-1, ISO-8859-15 and windows-1252"+saveAs)}
		}
		if bom && encoding != charsetUTF8 {
			return s.fault(s.pos+found[2]+1, "the encoding contradicts the UTF-8 byte order mark")
		}
		s.doc.charset = encoding
	}
	s.pos += found[1]
	return nil
}

// ErrUnsupported is in the error of Parse, too, where the file may be whole and is in an encoding that is not known here.
var ErrUnsupported = errors.New("unsupported encoding")

type unsupported struct{ error }

func (u unsupported) Is(target error) bool { return target == ErrUnsupported }

func (u unsupported) Unwrap() error { return u.error }

// characters checks the bytes of the whole file, so that nothing after it has to.
func (s *scanner) characters() error {
	offset := s.doc.charset.firstIllegal(s.data)
	switch {
	case offset < 0:
		return nil
	case s.data[offset] == 0:
		return s.fault(offset, "a NUL byte: the file was probably cut off when the power failed")
	}
	return s.fault(offset, "a control character, or a byte that the encoding does not have")
}

// prolog scans all that may stand between the XML declaration and the root element.
func (s *scanner) prolog() error {
	if err := s.misc(); err != nil || !bytes.HasPrefix(s.data[s.pos:], []byte("<!DOCTYPE")) {
		return err
	}
	if err := s.doctype(); err != nil {
		return err
	}
	return s.misc()
}

const (
	literalForm = `(?:"[^"]*"|'[^']*')`
	publicForm  = `(?:"[-\w \r\n'()+,./:=?;!*#@$%]*"|'[-\w \r\n()+,./:=?;!*#@$%]*')`
	remarkForm  = `<!--(?s:.*?)-->|<\?(?s:.*?)\?>`
	// maxEntity bounds the text that an entity may stand for, so that references to it cannot make much out of a small file.
	maxEntity = "256"
	// maxReference is how long a reference may be.
	maxReference = 100
)

// doctypeForm is a document type declaration: what stands in quotes, comments and instructions does not end it.
var doctypeForm = regexp.MustCompile(`^<!DOCTYPE\s+[A-Za-z_:][\w:.-]*(?:\s+(?:SYSTEM|PUBLIC\s+` + publicForm + `)\s+` + literalForm + `)?\s*` +
	`(?:\[(?:\s|%[^\s;%<]+;|` + remarkForm + `|<!(?:ELEMENT|ATTLIST|ENTITY|NOTATION)\s(?:` + literalForm + `|[^"'<>])*>)*\]\s*)?>`)

// entityForm is a remark, or the declaration of an entity that stands for plain text.
var entityForm = regexp.MustCompile(`(?:` + remarkForm + `)|<!ENTITY\s+(?:([A-Za-z_][\w.-]*)\s+("[^"<&]{0,` + maxEntity + `}"|'[^'<&]{0,` + maxEntity +
	`}')\s*>|([^%\s"'<>]+))`)

// doctype scans a document type declaration. Of what it declares, entities that stand for short plain text are read, the first
// of a name; none where a parameter entity is used, as that may declare others. A default that it gives an attribute is not seen.
func (s *scanner) doctype() error {
	whole := doctypeForm.Find(s.data[s.pos:])
	if whole == nil {
		return s.fault(s.pos, "the DOCTYPE is malformed or not closed")
	}
	start := s.pos
	s.pos += len(whole)
	if bytes.IndexByte(whole, '%') >= 0 {
		return nil
	}
	s.doc.entities = map[string]string{}
	declared := map[string]bool{}
	for _, found := range entityForm.FindAllSubmatchIndex(whole, -1) {
		name := span{found[2], found[3]}
		plain := found[2] >= 0
		if !plain {
			name = span{found[6], found[7]}
		}
		if name.start < 0 || declared[string(name.of(whole))] {
			continue
		}
		declared[string(name.of(whole))] = true
		text := span{found[4] + 1, found[5] - 1}
		if plain && !bytes.Contains(text.of(whole), []byte("]]>")) {
			s.doc.entities[string(name.of(whole))] = s.doc.meaning(span{start + text.start, start + text.end}.of(s.data))
		}
	}
	return nil
}

// misc scans white space, comments and processing instructions.
func (s *scanner) misc() error {
	for {
		s.space()
		var err error
		switch rest := s.data[s.pos:]; {
		case bytes.HasPrefix(rest, []byte("<?")):
			err = s.instruction()
		case bytes.HasPrefix(rest, []byte("<!--")):
			err = s.comment()
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// upTo scans something that opens with open and ends with the next end after that.
func (s *scanner) upTo(open, end, unclosed string) error {
	length := bytes.Index(s.data[s.pos+len(open):], []byte(end))
	if length < 0 {
		return s.fault(s.pos, unclosed)
	}
	s.pos += len(open) + length + len(end)
	return nil
}

func (s *scanner) comment() error {
	start := s.pos
	if !bytes.HasPrefix(s.data[start:], []byte("<!--")) {
		return s.fault(start, "<! starts neither a comment nor anything else that may stand here")
	}
	if err := s.upTo("<!--", "--", "a comment is not closed"); err != nil {
		return err
	}
	if s.pos == len(s.data) || s.data[s.pos] != '>' {
		return s.fault(s.pos-len("--"), "-- stands inside a comment")
	}
	s.pos++
	return nil
}

// instruction scans a processing instruction.
func (s *scanner) instruction() error {
	start := s.pos
	s.pos += len("<?")
	target, err := s.name()
	if err != nil {
		return err
	}
	if bytes.EqualFold(target.of(s.data), []byte("xml")) {
		return s.fault(start, "an XML declaration stands elsewhere than at the very start of the file")
	}
	if !s.space() && !bytes.HasPrefix(s.data[s.pos:], []byte("?>")) {
		return s.fault(s.pos, "in a processing instruction, white space or ?> is missing here")
	}
	return s.upTo("", "?>", "a processing instruction is not closed")
}
