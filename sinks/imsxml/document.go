// Package imsxml reads and sets the attributes of <ims> in a configuration file of Campaign and leaves every other byte as it is.
//
// encoding/xml would write the whole file anew, with other quotes, white space and line ends, and it accepts what is not well-formed.
// So the text is scanned here: Parse checks that it is one well-formed XML document and notes where <shared> and <ims> stand, and Set
// replaces the wanted attributes there. What Parse accepts libxml2 accepts too. Other encodings than those of Campaign's files, and a
// DOCTYPE that declares more than entities of plain text, are refused.
package imsxml

import (
	"encoding/xml"
	"fmt"
	"strings"

	"golang.org/x/text/encoding/charmap"

	"campaign-credsync/internal/credential"
)

// Document is a well-formed configuration file and where <ims> stands in it. It may be used concurrently.
type Document struct {
	text    string           // in UTF-8
	charset *charmap.Charmap // of the file; nil is UTF-8
	// shared is the first <shared> in <serverconf>, and ims the first <ims> in a <shared>; nil: there is none.
	shared, ims *startTag
}

// startTag is a start tag or an empty-element tag, and where it stands.
type startTag struct {
	attributes []attribute
	addAt      int // behind the name, or the last attribute
	end        int // behind the ">"
	empty      bool
}

// attribute is an attribute and where it stands.
type attribute struct {
	name, value string
	start       int // of the white space in front of it
	quote       int
	end         int // behind the closing quote
}

// Parse checks that data is one well-formed XML document, and finds <shared> and <ims>. It takes time in proportion to the length of
// data. Its error wraps [credential.ErrDamaged] or [ErrUnsupported] and says line:column. It quotes nothing from the file, as in a
// damaged one a piece of a password may stand where a name should.
func Parse(data []byte) (*Document, error) { return parse(data, nil) }

// parse has read, if it is not nil, told of each piece behind the XML declaration. For that of a tag, the scanner has its attributes.
func parse(data []byte, read func(s *scanner, piece string)) (*Document, error) {
	charset, start, err := charsetOf(data)
	if err != nil {
		return nil, err
	}
	d := &Document{charset: charset}
	if d.text, err = decode(charset, data); err != nil {
		return nil, err
	}
	s := &scanner{text: d.text, pos: start, doc: d}
	if read != nil {
		s.read = func(piece string) { read(s, piece) }
	}
	return d, s.document()
}

// Attributes returns all attributes of <ims> in the order of the file, with the values that an XML parser gives: references
// replaced, tabs and line ends as spaces. It is nil when there is no <ims>, and empty when <ims> has none.
func (d *Document) Attributes() credential.Attributes {
	if d.ims == nil {
		return nil
	}
	all := make(credential.Attributes, 0, len(d.ims.attributes))
	for _, a := range d.ims.attributes {
		raw := encode(d.charset, []byte(d.text[a.quote:a.end]))
		all = append(all, credential.Attribute{Name: a.name, Value: a.value, Raw: raw})
	}
	return all
}

// HasPlace reports whether there is a <shared> in <serverconf>, into which Set can put an <ims>.
func (d *Document) HasPlace() bool { return d.shared != nil }

// Set returns the file with the attributes of <ims> as want has them. A value that differs is replaced by the bytes in which it was
// written when it was seen, or, where these are not known, between the quotes found there. An attribute that is missing is added behind
// the last one; one wanted absent is removed with the white space in front of it. A missing <ims> becomes the first child of <shared>.
// Attributes that want does not name, and every other byte, stay as they are.
//
// The error wraps [credential.ErrCannotSplice]: there is no place for <ims>, or what is wanted cannot be written in XML.
func (d *Document) Set(want credential.Attributes) ([]byte, error) {
	missing := make(map[string]credential.Attribute, len(want))
	for _, w := range want {
		missing[w.Name] = w
	}
	next := make([]byte, 0, len(d.text)+1024) // a credential adds less, as a rule
	copied := 0
	replace := func(start, end int, by string) {
		next = append(append(next, d.text[copied:start]...), by...)
		copied = end
	}
	var attributes []attribute
	if d.ims != nil {
		attributes = d.ims.attributes
	}
	for _, has := range attributes {
		w, wanted := missing[has.name]
		delete(missing, has.name)
		switch {
		case !wanted || w.Value == has.value && !w.Absent:
		case w.Absent:
			replace(has.start, has.end, "")
		default:
			text, err := d.written(w, d.text[has.quote:has.quote+1])
			if err != nil {
				return nil, err
			}
			replace(has.quote, has.end, text)
		}
	}
	added := ""
	for _, w := range want {
		if _, lacks := missing[w.Name]; lacks && !w.Absent {
			text, err := d.written(w, `"`)
			if err != nil {
				return nil, err
			}
			added += " " + w.Name + "=" + text
		}
	}
	switch {
	case added == "":
	case d.ims != nil:
		replace(d.ims.addAt, d.ims.addAt, added)
	case d.shared == nil:
		return nil, fmt.Errorf("%w: <ims> is missing, and there is no <serverconf><shared> to put it into", credential.ErrCannotSplice)
	case d.shared.empty:
		replace(d.shared.end-len("/>"), d.shared.end, "><ims"+added+"/></shared>")
	default:
		replace(d.shared.end, d.shared.end, "<ims"+added+"/>")
	}
	return encode(d.charset, append(next, d.text[copied:]...)), nil
}

// written returns the value of w with its quotes: as it was written when it was seen, if that means the value in this file (it may
// come from before somebody changed the file's encoding), else between quote. What is returned reads back as w.
func (d *Document) written(w credential.Attribute, quote string) (string, error) {
	var escaped strings.Builder
	xml.EscapeText(&escaped, []byte(w.Value))
	raw, _ := decode(d.charset, w.Raw) // "" after an error
	for _, text := range []string{raw, quote + escaped.String() + quote} {
		s := scanner{text: w.Name + "=" + text}
		a, ok := s.attribute()
		if ok && s.pos == len(s.text) && a.name == w.Name && a.value == w.Value {
			return text, nil
		}
	}
	return "", fmt.Errorf("%w: an attribute does not read back", credential.ErrCannotSplice)
}
