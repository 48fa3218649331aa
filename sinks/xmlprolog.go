package sinks

import (
	"bytes"
	"unicode/utf8"
)

const utf8BOM = "\xef\xbb\xbf"

// wideMarks are how a file starts whose characters are not the bytes of ASCII, by XML 1.0 appendix F.
var wideMarks = []struct{ mark, encoding string }{
	{"\x00\x00\xfe\xff", "UTF-32"},
	{"\xff\xfe\x00\x00", "UTF-32"},
	{"\x00\x00\x00<", "UTF-32"},
	{"<\x00\x00\x00", "UTF-32"},
	{"\xfe\xff", "UTF-16"},
	{"\xff\xfe", "UTF-16"},
	{"\x00<", "UTF-16"},
	{"<\x00", "UTF-16"},
	{"\x4c\x6f\xa7\x94", "EBCDIC"},
}

// declaration scans the byte order mark and the XML declaration, and so finds the encoding.
func (s *xmlScanner) declaration() error {
	if len(s.data) == 0 {
		return s.fault(0, "the file is empty")
	}
	for _, wide := range wideMarks {
		if bytes.HasPrefix(s.data, []byte(wide.mark)) {
			return s.fault(0, "the file is in "+wide.encoding+", which is not supported here (save it as UTF-8)")
		}
	}
	bom := bytes.HasPrefix(s.data, []byte(utf8BOM))
	if bom {
		s.pos = len(utf8BOM)
	}
	rest := s.data[s.pos:]
	if !bytes.HasPrefix(rest, []byte("<?xml")) || len(rest) > 5 && xmlClasses[rest[5]]&xmlSpace == 0 {
		return nil // "<?xml-stylesheet" is an instruction like any other
	}
	s.pos += len("<?xml")

	version, err := s.pseudoAttribute("version")
	if err != nil {
		return err
	}
	if !isXMLVersion(version.of(s.data)) {
		return s.fault(s.pos, "the XML declaration gives no version 1.x")
	}
	encoding, err := s.pseudoAttribute("encoding")
	if err != nil {
		return err
	}
	if encoding != (xmlSpan{}) {
		charset, known := charsetCalled(string(encoding.of(s.data)))
		if !known && isWideName(encoding.of(s.data)) {
			return s.fault(encoding.start, s.notWide())
		}
		if !known {
			return s.fault(encoding.start, "the encoding is none of UTF-8, US-ASCII, ISO-8859-x and windows-125x; others are not supported here (save the file as UTF-8)")
		}
		if bom && charset.kind != charsetUTF8 {
			return s.fault(encoding.start, "the encoding contradicts the UTF-8 byte order mark")
		}
		s.doc.charset = charset
	}
	standalone, err := s.pseudoAttribute("standalone")
	if err != nil {
		return err
	}
	if v := string(standalone.of(s.data)); standalone != (xmlSpan{}) && v != "yes" && v != "no" {
		return s.fault(standalone.start, "standalone is neither yes nor no")
	}
	s.space()
	if !bytes.HasPrefix(s.data[s.pos:], []byte("?>")) {
		return s.fault(s.pos, "the XML declaration does not end here with ?>")
	}
	s.pos += len("?>")
	return nil
}

// isWideName reports whether an encoding of that name has more than one byte for a character of ASCII.
func isWideName(name []byte) bool {
	name = bytes.ToUpper(name)
	for _, prefix := range []string{"UTF-16", "UTF16", "UTF-32", "UTF32", "UCS-2", "UCS-4", "ISO-10646-UCS-"} {
		if bytes.HasPrefix(name, []byte(prefix)) {
			return true
		}
	}
	return false
}

// notWide says what a file is whose declaration can be read byte by byte, and names an encoding in which it could not.
func (s *xmlScanner) notWide() string {
	if utf8.Valid(s.data) {
		return "the file is in UTF-8, and its XML declaration says UTF-16 or the like (write UTF-8 there)"
	}
	return "the XML declaration says UTF-16 or the like, and the file is in an encoding of single bytes (write there which one)"
}

// isXMLVersion accepts what XML 1.0, fifth edition, has a processor accept: 1.1 and above are read as 1.0.
func isXMLVersion(version []byte) bool {
	minor, ok := bytes.CutPrefix(version, []byte("1."))
	return ok && len(minor) > 0 && len(bytes.Trim(minor, "0123456789")) == 0
}

// pseudoAttribute scans the part of the XML declaration called name if it stands next. It returns where its value
// stands, or the zero span.
func (s *xmlScanner) pseudoAttribute(name string) (xmlSpan, error) {
	start := s.pos
	if !s.space() || !bytes.HasPrefix(s.data[s.pos:], []byte(name)) {
		s.pos = start
		return xmlSpan{}, nil
	}
	s.pos += len(name)
	s.space()
	if s.pos == len(s.data) || s.data[s.pos] != '=' {
		return xmlSpan{}, s.fault(s.pos, "in the XML declaration, = is missing here")
	}
	s.pos++
	s.space()
	return s.literal("in the XML declaration, a quoted value is missing here")
}

// literal scans something in quotes and returns where it stands between them.
func (s *xmlScanner) literal(missing string) (xmlSpan, error) {
	if s.pos == len(s.data) || s.data[s.pos] != '"' && s.data[s.pos] != '\'' {
		return xmlSpan{}, s.fault(s.pos, missing)
	}
	length := bytes.IndexByte(s.data[s.pos+1:], s.data[s.pos])
	if length < 0 {
		return xmlSpan{}, s.fault(s.pos, "a quote is not closed")
	}
	inside := xmlSpan{s.pos + 1, s.pos + 1 + length}
	s.pos = inside.end + 1
	return inside, nil
}

// characters checks the bytes of the whole file, so that nothing after it has to.
func (s *xmlScanner) characters() error {
	if offset := s.doc.charset.firstIllegal(s.data); offset >= 0 {
		if s.data[offset] == 0 {
			return s.fault(offset, "a NUL byte: the file was probably cut off when the power failed")
		}
		return s.fault(offset, "a control character, or a byte that the encoding does not have")
	}
	return nil
}

// prolog scans all that may stand between the XML declaration and the root element.
func (s *xmlScanner) prolog() error {
	if err := s.misc(); err != nil {
		return err
	}
	if !bytes.HasPrefix(s.data[s.pos:], []byte("<!DOCTYPE")) {
		return nil
	}
	if err := s.doctype(); err != nil {
		return err
	}
	return s.misc()
}

// misc scans white space, comments and processing instructions.
func (s *xmlScanner) misc() error {
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
func (s *xmlScanner) upTo(open, end, unclosed string) error {
	length := bytes.Index(s.data[s.pos+len(open):], []byte(end))
	if length < 0 {
		return s.fault(s.pos, unclosed)
	}
	s.pos += len(open) + length + len(end)
	return nil
}

func (s *xmlScanner) comment() error {
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
func (s *xmlScanner) instruction() error {
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
