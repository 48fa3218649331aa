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
// DOCTYPE is skipped, not checked. Namespaces are no concern of it: names are compared as they are written.
//
//   - xmldocument.go: what is known of a file after the scan
//   - xmlscan.go: elements, attributes, text
//   - xmlprolog.go: byte order mark, XML declaration, comments, processing instructions, DOCTYPE
//   - xmlcharset.go: which encodings are read, and which characters and names
//   - xmlsplice.go: setting and removing attributes

import "campaign-credsync/internal/credential"

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
		all = append(all, credential.Attribute{Name: d.nameOf(a), Value: d.valueOf(a)})
	}
	return all
}

func (d *document) nameOf(a documentAttribute) string {
	return d.charset.text(a.name.of(d.data))
}

func (d *document) valueOf(a documentAttribute) string {
	return d.charset.attributeValue(a.value.of(d.data))
}
