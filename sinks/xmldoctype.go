package sinks

import "bytes"

// The document type declaration. No instance file is known to have one, and it is not put to use here: an entity that it
// declares counts as undefined, and a default that it gives an attribute is not seen. It is skipped correctly, that
// is all: what stands in quotes, comments and instructions does not end it.

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
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case '>':
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
