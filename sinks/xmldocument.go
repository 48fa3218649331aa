package sinks

// How the instance's configuration file is read and changed: the xml*.go files.
//
// The file also holds the database login and the hand-made settings of an administrator, so a change must leave every
// byte that is not ours as it was. encoding/xml can find <ims> and cannot write it back: it serialises anew, and so
// loses quotes, white space, line ends and prefixes. For finding alone it is too lenient (it accepts two roots, text
// behind the root, an attribute given twice), too slow for a revert that should cost no more than reading and
// writing the file, and it loses the byte offsets as soon as the file is not UTF-8.
//
// So the bytes are scanned by hand. scanDocument checks that they are one well-formed XML 1.0 document and remembers
// where <shared> and <ims> stand; splice cuts the wanted attributes in at those offsets and copies the rest. Whatever
// the scanner accepts libxml2 accepts too (the tests hold it to that), with one exception: what is declared inside a
// DOCTYPE is not checked; of it, entities that stand for mere text are read. Namespaces are no concern of it: names are compared as they are written.
//
//   - xmldocument.go: what is known of a file after the scan
//   - xmlscan.go: elements, attributes, text
//   - xmlprolog.go: byte order mark, XML declaration, comments, processing instructions, DOCTYPE
//   - xmlcharset.go: which encodings are read, and which characters and names
//   - xmlsplice.go: setting and removing attributes

import (
	"strings"
	"unicode/utf8"

	"campaign-credsync/internal/credential"
)

// document is a well-formed instance configuration file and where <ims> stands in it. It refers to the bytes that it was
// scanned from, which must not be changed while it is in use. It does not change, so it may be used concurrently.
type document struct {
	data    []byte
	charset xmlCharset
	// serverConf says that the root is <serverconf> or <serverConf>.
	serverConf bool
	// shared is the first <shared> directly in the root.
	shared documentTag
	// ims is the first <ims> directly in a <shared> directly in the root, and imsAttributes what stands in its tag.
	ims           documentTag
	imsAttributes []documentAttribute
	several       bool
	// entities are those that the DOCTYPE declares, by name.
	entities map[string]documentEntity
}

// documentTag is a start tag or an empty-element tag. The zero documentTag was not found.
type documentTag struct {
	nameEnd   int // offset behind the element's name
	end       int // offset behind the ">"
	selfClose bool
}

func (t documentTag) found() bool { return t.end > 0 }

// documentAttribute says where an attribute stands.
type documentAttribute struct {
	lead  int // offset of the white space in front of it
	name  xmlSpan
	value xmlSpan // as written, without the quotes
}

// end is the offset behind the closing quote.
func (a documentAttribute) end() int { return a.value.end + 1 }

// raw is where the value stands with its quotes.
func (a documentAttribute) raw() xmlSpan { return xmlSpan{a.value.start - 1, a.value.end + 1} }

// documentEntity is what a declared entity stands for.
type documentEntity struct {
	plain bool   // it is mere text, and short; others are not read here
	text  string // as a part of an attribute's value
}

// xmlSpan is data[start:end].
type xmlSpan struct{ start, end int }

func (s xmlSpan) of(data []byte) []byte { return data[s.start:s.end] }

// hasIMS reports whether the file has an <ims> that Campaign would read the credential from.
func (d *document) hasIMS() bool { return d.ims.found() }

// hasSeveralIMS reports whether more than one <ims> stands where only one belongs. The first counts and the others are
// left alone; which of them Campaign reads is not known, so a person should be told.
func (d *document) hasSeveralIMS() bool { return d.several }

// attributes returns all attributes of <ims> in the order of the file, with the values that an XML parser gives: references
// replaced, tabs and line ends as spaces. It is nil when there is no <ims>, and empty when <ims> has none.
func (d *document) attributes() credential.Attributes {
	if !d.hasIMS() {
		return nil
	}
	all := make(credential.Attributes, 0, len(d.imsAttributes))
	for _, a := range d.imsAttributes {
		all = append(all, credential.Attribute{Name: d.nameOf(a), Value: d.valueOf(a), Raw: credential.Bytes(a.raw().of(d.data))})
	}
	return all
}

func (d *document) nameOf(a documentAttribute) string {
	return d.charset.text(a.name.of(d.data))
}

func (d *document) valueOf(a documentAttribute) string {
	return d.attributeValue(a.value.of(d.data))
}

// attributeValue decodes the value of an attribute as an XML parser does. The value was scanned before.
func (d *document) attributeValue(raw []byte) string {
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); {
		switch char := raw[i]; {
		case char == '&':
			text, size := d.reference(raw[i:])
			b.WriteString(text)
			i += size
		case char == '\r' && i+1 < len(raw) && raw[i+1] == '\n':
			i++ // one line end, one space, written for the \n
		case xmlClasses[char]&xmlSpace != 0:
			b.WriteByte(' ')
			i++
		case char >= utf8.RuneSelf && d.charset.singleByte():
			b.WriteRune(rune(char))
			i++
		default:
			b.WriteByte(char)
			i++
		}
	}
	return b.String()
}

// reference reads the reference at the start of text, which starts with "&". Its size is 0 when it has no meaning here.
func (d *document) reference(text []byte) (means string, size int) {
	if r, size := xmlReference(text); size > 0 {
		return string(r), size
	}
	end := 1 + d.charset.nameLength(text[1:])
	if entity := d.entities[string(text[1:end])]; entity.plain && end < len(text) && text[end] == ';' {
		return entity.text, end + 1
	}
	return "", 0
}
