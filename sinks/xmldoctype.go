package sinks

import "bytes"

// The document type declaration. It is skipped correctly: what stands in quotes, comments and instructions does not end it. Of
// what it declares, entities that stand for short text are read. A default that it gives an attribute is not seen.

// maxEntity bounds the text that an entity may stand for, so that many references to it cannot make much out of a small file.
const maxEntity = 256

// pubidPunctuation is what a public identifier may hold besides letters and digits.
const pubidPunctuation = " \r\n-'()+,./:=?;!*#@$_%"

// doctype scans a document type declaration.
func (s *xmlScanner) doctype() error {
	start := s.pos
	s.pos += len("<!DOCTYPE")
	if !s.space() {
		return s.fault(s.pos, "in the DOCTYPE, white space is missing here")
	}
	if _, err := s.name(); err != nil {
		return err
	}
	if s.space() {
		if err := s.externalID(); err != nil {
			return err
		}
		s.space()
	}
	if s.pos < len(s.data) && s.data[s.pos] == '[' {
		s.pos++
		if err := s.internalSubset(start); err != nil {
			return err
		}
		s.space()
	}
	if s.pos == len(s.data) {
		return s.fault(start, "the DOCTYPE is not closed")
	}
	if s.data[s.pos] != '>' {
		return s.fault(s.pos, "the DOCTYPE does not end here with >")
	}
	s.pos++
	return nil
}

// externalID scans the name of a DTD, if it stands next.
func (s *xmlScanner) externalID() error {
	const missing = "in the DOCTYPE, a quoted identifier is missing here"
	rest := s.data[s.pos:]
	public := bytes.HasPrefix(rest, []byte("PUBLIC"))
	if !public && !bytes.HasPrefix(rest, []byte("SYSTEM")) {
		return nil
	}
	s.pos += len("SYSTEM") // as long as PUBLIC
	if !s.space() {
		return s.fault(s.pos, "in the DOCTYPE, white space is missing here")
	}
	if public {
		id, err := s.literal(missing)
		if err != nil {
			return err
		}
		for i, b := range id.of(s.data) {
			letter := b|0x20 >= 'a' && b|0x20 <= 'z' || b >= '0' && b <= '9'
			if !letter && bytes.IndexByte([]byte(pubidPunctuation), b) < 0 {
				return s.fault(id.start+i, "a character that a public identifier cannot hold")
			}
		}
		if !s.space() {
			return s.fault(s.pos, "in the DOCTYPE, white space is missing here")
		}
	}
	_, err := s.literal(missing)
	return err
}

// internalSubset skips the declarations in a DOCTYPE that starts at start, and the "]" behind them.
func (s *xmlScanner) internalSubset(start int) error {
	for {
		s.space()
		var err error
		switch rest := s.data[s.pos:]; {
		case len(rest) == 0:
			return s.fault(start, "the DOCTYPE is not closed")
		case rest[0] == ']':
			s.pos++
			return nil
		case rest[0] == '%':
			err = s.parameterReference()
		case bytes.HasPrefix(rest, []byte("<?")):
			err = s.instruction()
		case bytes.HasPrefix(rest, []byte("<!--")):
			err = s.comment()
		default:
			err = s.markupDeclaration()
		}
		if err != nil {
			return err
		}
	}
}

// parameterReference scans a reference to a parameter entity.
func (s *xmlScanner) parameterReference() error {
	s.pos++
	s.parameters = true
	if _, err := s.name(); err != nil {
		return err
	}
	if s.pos == len(s.data) || s.data[s.pos] != ';' {
		return s.fault(s.pos, "in the DOCTYPE, ; is missing here")
	}
	s.pos++
	return nil
}

// markupDeclaration skips one declaration of an element, an attribute list, an entity or a notation.
func (s *xmlScanner) markupDeclaration() error {
	start := s.pos
	known := false
	for _, keyword := range []string{"<!ELEMENT", "<!ATTLIST", "<!ENTITY", "<!NOTATION"} {
		if bytes.HasPrefix(s.data[start:], []byte(keyword)) {
			known = true
			s.pos += len(keyword)
			break
		}
	}
	if !known || !s.space() {
		return s.fault(start, "something that cannot stand in a DOCTYPE")
	}
	for body := s.pos; s.pos < len(s.data); {
		switch s.data[s.pos] {
		case '>':
			if bytes.HasPrefix(s.data[start:], []byte("<!ENTITY")) {
				s.declareEntity(s.data[body:s.pos])
			}
			s.pos++
			return nil
		case '<':
			return s.fault(start, "a declaration in the DOCTYPE is not closed")
		case '"', '\'':
			if _, err := s.literal(""); err != nil {
				return err
			}
		default:
			s.pos++
		}
	}
	return s.fault(start, "a declaration in the DOCTYPE is not closed")
}

// declareEntity notes the entity that a declaration declares; body is what stands behind its keyword. The first declaration of
// a name counts.
func (s *xmlScanner) declareEntity(body []byte) {
	name := body[:s.doc.charset.nameLength(body)]
	if len(name) == 0 || s.doc.declares(name) {
		return // "%": it can be used in the DOCTYPE only
	}
	if s.doc.entities == nil {
		s.doc.entities = map[string]documentEntity{}
	}
	text := xmlScanner{data: body, pos: len(name), doc: s.doc}
	spaced := text.space()
	value, err := text.literal("")
	text.space()
	raw := value.of(body)
	entity := documentEntity{plain: spaced && err == nil && text.pos == len(body) && len(raw) <= maxEntity && !s.parameters &&
		!bytes.ContainsAny(raw, "<&%") && !bytes.Contains(raw, []byte("]]>")) && !bytes.Contains(name, []byte(":"))}
	if entity.plain {
		entity.text = s.doc.attributeValue(raw)
	}
	s.doc.entities[string(name)] = entity
}

// declares reports whether the DOCTYPE declares an entity of that name.
func (d *document) declares(name []byte) bool {
	_, declared := d.entities[string(name)]
	return declared
}
