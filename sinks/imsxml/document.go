// Package imsxml reads and sets the attributes of <ims> in a configuration file of Campaign and leaves every other byte as it is.
//
// encoding/xml would write the whole file anew, with other quotes, white space and line ends. So the bytes are scanned here: Parse
// checks that they are one well-formed XML document and notes where <shared> and <ims> stand, and Set cuts the wanted attributes
// in there. What Parse accepts libxml2 accepts too, except that most of what a DOCTYPE declares is not checked. What cannot be read
// with certainty is refused: other encodings than those of Campaign's files, and entities that stand for more than plain text.
package imsxml

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"campaign-credsync/internal/credential"
)

// Document is a well-formed configuration file and where <ims> stands in it. It refers to the bytes that it was parsed from,
// which must not be changed. It may be used concurrently.
type Document struct {
	data    []byte
	charset charset
	// serverConf says that the root is <serverconf> or <serverConf>.
	serverConf bool
	// shared is the first <shared> directly in the root.
	shared tag
	// ims is the first <ims> directly in a <shared> directly in the root, and imsAttributes what stands in its tag.
	ims           tag
	imsAttributes []attribute
	several       bool
	// entities are those that the DOCTYPE declares as plain text, by name.
	entities map[string]string
}

// tag is a start tag or an empty-element tag. The zero tag was not found.
type tag struct {
	nameEnd   int // offset behind the element's name
	end       int // offset behind the ">"
	selfClose bool
}

func (t tag) found() bool { return t.end > 0 }

// attribute says where an attribute stands.
type attribute struct {
	lead  int // offset of the white space in front of it
	name  span
	value span // as written, without the quotes
}

// raw is where the value stands with its quotes.
func (a attribute) raw() span { return span{a.value.start - 1, a.value.end + 1} }

// span is data[start:end].
type span struct{ start, end int }

func (s span) of(data []byte) []byte { return data[s.start:s.end] }

// HasSeveralIMS reports whether more than one <ims> stands where one belongs. The first counts and the others are left alone.
// Which of them Campaign reads is not known, so a person should be told.
func (d *Document) HasSeveralIMS() bool { return d.several }

// Attributes returns all attributes of <ims> in the order of the file, with the values that an XML parser gives: references
// replaced, tabs and line ends as spaces. It is nil when there is no <ims>, and empty when <ims> has none.
func (d *Document) Attributes() credential.Attributes {
	if !d.ims.found() {
		return nil
	}
	all := make(credential.Attributes, 0, len(d.imsAttributes))
	for _, a := range d.imsAttributes {
		all = append(all, credential.Attribute{Name: d.nameOf(a), Value: d.valueOf(a), Raw: credential.Bytes(a.raw().of(d.data))})
	}
	return all
}

func (d *Document) nameOf(a attribute) string { return d.charset.text(a.name.of(d.data)) }

func (d *Document) valueOf(a attribute) string { return d.meaning(a.value.of(d.data)) }

// meaning decodes the value of an attribute. The value was scanned before.
func (d *Document) meaning(raw []byte) string {
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); {
		switch char := raw[i]; {
		case char == '&':
			text, size := d.reference(raw[i:])
			b.WriteString(text)
			i += size
			continue
		case char == '\r' && i+1 < len(raw) && raw[i+1] == '\n':
			// One line end, one space, written for the \n.
		case isSpace[char]:
			b.WriteByte(' ')
		case char >= utf8.RuneSelf && d.charset.singleByte():
			b.WriteRune(rune(char))
		default:
			b.WriteByte(char)
		}
		i++
	}
	return b.String()
}

var predefined = map[string]string{"amp": "&", "lt": "<", "gt": ">", "quot": `"`, "apos": "'"}

// reference reads the reference at the start of text, which starts with "&". Its size is 0 when it has no meaning here.
func (d *Document) reference(text []byte) (means string, size int) {
	end := bytes.IndexByte(text, ';')
	if end < 0 || end > maxReference {
		return "", 0
	}
	name := string(text[1:end])
	if r, ok := character(name); ok {
		return string(r), end + 1
	}
	means, ok := predefined[name]
	if !ok {
		means, ok = d.entities[name]
	}
	if !ok {
		return "", 0
	}
	return means, end + 1
}

// character reads the name of a character reference: "#65", "#x41".
func character(name string) (r rune, ok bool) {
	digits, ok := strings.CutPrefix(name, "#")
	base := rune(10)
	if hex, isHex := strings.CutPrefix(digits, "x"); isHex {
		digits, base = hex, 16
	}
	if !ok || digits == "" {
		return 0, false
	}
	for _, char := range []byte(digits) {
		lower := char | 0x20
		switch {
		case '0' <= char && char <= '9':
			r = r*base + rune(char-'0')
		case base == 16 && 'a' <= lower && lower <= 'f':
			r = r*base + rune(lower-'a') + 10
		default:
			return 0, false
		}
		if r > utf8.MaxRune {
			return 0, false
		}
	}
	return r, isXMLChar(r)
}
