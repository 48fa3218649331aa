package sinks

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// xmlCharset is the encoding of a document. All those supported hold ASCII as it is, so that markup can be found byte by
// byte. The zero xmlCharset is UTF-8, as XML has it.
type xmlCharset struct {
	kind      charsetKind
	undefined string // bytes that the encoding has no character for
}

type charsetKind int

const (
	charsetUTF8 charsetKind = iota
	charsetASCII
	charsetLatin1 // ISO-8859-1: a byte is the character of the same number
	// charsetOther is another single-byte encoding. Campaign's attributes, element names and ciphertexts are ASCII, so
	// tables of what the other bytes mean would serve nobody: such a byte may stand in values and text, where it is
	// told apart from others and never written, and nowhere in a name.
	charsetOther
)

// undefinedBytes lists what the C library's iconv refuses, per encoding; those supported and without gaps are in it too.
var undefinedBytes = map[string]string{
	"iso-8859-2": "", "iso-8859-4": "", "iso-8859-5": "", "iso-8859-9": "", "iso-8859-10": "", "iso-8859-13": "",
	"iso-8859-14": "", "iso-8859-15": "", "iso-8859-16": "", "windows-1256": "",

	"iso-8859-3": "\xa5\xae\xbe\xc3\xd0\xe3\xf0",
	"iso-8859-6": "\xa1\xa2\xa3\xa5\xa6\xa7\xa8\xa9\xaa\xab\xae\xaf\xb0\xb1\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xbc" +
		"\xbd\xbe\xc0\xdb\xdc\xdd\xde\xdf\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff",
	"iso-8859-7": "\xae\xd2\xff",
	"iso-8859-8": "\xa1\xbf\xc0\xc1\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xcb\xcc\xcd\xce\xcf\xd0\xd1\xd2\xd3\xd4\xd5" +
		"\xd6\xd7\xd8\xd9\xda\xdb\xdc\xdd\xde\xfb\xfc\xff",
	"iso-8859-11":  "\xdb\xdc\xdd\xde\xfc\xfd\xfe\xff",
	"windows-1250": "\x81\x83\x88\x90\x98",
	"windows-1251": "\x98",
	"windows-1252": "\x81\x8d\x8f\x90\x9d",
	"windows-1253": "\x81\x88\x8a\x8c\x8d\x8e\x8f\x90\x98\x9a\x9c\x9d\x9e\x9f\xaa\xd2\xff",
	"windows-1254": "\x81\x8d\x8e\x8f\x90\x9d\x9e",
	"windows-1255": "\x81\x8a\x8c\x8d\x8e\x8f\x90\x9a\x9c\x9d\x9e\x9f\xca\xd9\xda\xdb\xdc\xdd\xde\xdf\xfb\xfc\xff",
	"windows-1257": "\x81\x83\x88\x8a\x8c\x90\x98\x9a\x9c\x9f\xa1\xa5",
	"windows-1258": "\x81\x8a\x8d\x8e\x8f\x90\x9a\x9d\x9e",
}

// charsetCalled returns the encoding that an XML declaration calls name.
func charsetCalled(name string) (charset xmlCharset, known bool) {
	name = strings.ToLower(name)
	for _, alias := range []struct{ prefix, of string }{
		{"iso8859-", "iso-8859-"}, {"iso_8859-", "iso-8859-"}, {"cp125", "windows-125"},
	} {
		if number, ok := strings.CutPrefix(name, alias.prefix); ok {
			name = alias.of + number
		}
	}
	switch name {
	case "utf-8", "utf8":
		return xmlCharset{kind: charsetUTF8}, true
	case "us-ascii", "ascii":
		return xmlCharset{kind: charsetASCII}, true
	case "iso-8859-1", "latin1":
		return xmlCharset{kind: charsetLatin1}, true
	}
	undefined, known := undefinedBytes[name]
	return xmlCharset{kind: charsetOther, undefined: undefined}, known
}

func (c xmlCharset) singleByte() bool { return c.kind == charsetLatin1 || c.kind == charsetOther }

// What a byte of ASCII may be. A byte above is none of these.
const (
	xmlSpace uint8 = 1 << iota
	xmlNameStart
	xmlNamePart
	xmlIllegal
)

var xmlClasses = func() (classes [256]uint8) {
	for b := range 0x20 {
		classes[b] = xmlIllegal
	}
	for _, b := range []byte(" \t\r\n") {
		classes[b] = xmlSpace
	}
	for b := range 26 {
		classes['a'+b] = xmlNameStart | xmlNamePart
		classes['A'+b] = xmlNameStart | xmlNamePart
	}
	for _, b := range []byte("_:") {
		classes[b] = xmlNameStart | xmlNamePart
	}
	for _, b := range []byte("-.0123456789") {
		classes[b] = xmlNamePart
	}
	return classes
}()

// firstIllegal returns the offset of the first byte that is no part of a character which XML allows, or -1.
func (c xmlCharset) firstIllegal(data []byte) int {
	illegal := xmlClasses
	if c.kind == charsetASCII {
		for b := 0x80; b <= 0xff; b++ {
			illegal[b] = xmlIllegal
		}
	}
	for _, b := range []byte(c.undefined) {
		illegal[b] = xmlIllegal
	}
	for i, b := range data {
		if illegal[b]&xmlIllegal != 0 {
			return i
		}
	}
	if c.kind != charsetUTF8 {
		return -1
	}
	if !utf8.Valid(data) {
		for i := 0; ; {
			r, size := utf8.DecodeRune(data[i:])
			if r == utf8.RuneError && size <= 1 {
				return i
			}
			i += size
		}
	}
	// What is left are U+FFFE and U+FFFF: proper UTF-8, and no XML.
	for i := 0; ; {
		next := bytes.Index(data[i:], []byte("\xef\xbf"))
		if next < 0 {
			return -1
		}
		i += next
		if data[i+2] >= 0xbe {
			return i
		}
		i += 3
	}
}

// nameLength returns how many bytes at the start of data are a name.
func (c xmlCharset) nameLength(data []byte) int {
	if len(data) == 0 || data[0] < utf8.RuneSelf && xmlClasses[data[0]]&xmlNameStart == 0 {
		return 0
	}
	i := 0
	for i < len(data) {
		if xmlClasses[data[i]]&xmlNamePart != 0 {
			i++
			continue
		}
		if data[i] < utf8.RuneSelf {
			break
		}
		r, size := c.decode(data[i:])
		if !isNameRune(r, i == 0) {
			break
		}
		i += size
	}
	return i
}

// decode returns the character at the start of data, or utf8.RuneError if it is not known.
func (c xmlCharset) decode(data []byte) (r rune, size int) {
	switch c.kind {
	case charsetUTF8:
		return utf8.DecodeRune(data)
	case charsetLatin1:
		return rune(data[0]), 1
	}
	return utf8.RuneError, 1
}

// nameRunes are the ranges of characters outside ASCII that a name may start with, from XML 1.0, fifth edition.
var nameRunes = [][2]rune{
	{0xc0, 0xd6}, {0xd8, 0xf6}, {0xf8, 0x2ff}, {0x370, 0x37d}, {0x37f, 0x1fff}, {0x200c, 0x200d}, {0x2070, 0x218f},
	{0x2c00, 0x2fef}, {0x3001, 0xd7ff}, {0xf900, 0xfdcf}, {0xfdf0, 0xfffc}, {0x10000, 0xeffff},
}

// isNameRune reports whether r, from outside ASCII, may stand in a name. U+FFFD, which XML allows, is left out: it says
// that a character was lost.
func isNameRune(r rune, first bool) bool {
	for _, span := range nameRunes {
		if span[0] <= r && r <= span[1] {
			return true
		}
	}
	return !first && (r == 0xb7 || 0x300 <= r && r <= 0x36f || 0x203f <= r && r <= 0x2040)
}

// text decodes raw. In a single-byte encoding other than ISO-8859-1 each byte outside ASCII stands for itself: that is
// not its meaning, and keeps different texts different.
func (c xmlCharset) text(raw []byte) string {
	if !c.singleByte() {
		return string(raw)
	}
	var b strings.Builder
	for _, char := range raw {
		b.WriteRune(rune(char))
	}
	return b.String()
}

// xmlReference reads the reference at the start of text, which starts with "&". Its size is 0 when it is none that is
// defined without a DTD.
func xmlReference(text []byte) (r rune, size int) {
	for _, entity := range []struct {
		text string
		is   rune
	}{{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}} {
		if bytes.HasPrefix(text, []byte(entity.text)) {
			return entity.is, len(entity.text)
		}
	}
	digits, base := len("&#"), rune(10)
	if bytes.HasPrefix(text, []byte("&#x")) {
		digits, base = len("&#x"), 16
	} else if !bytes.HasPrefix(text, []byte("&#")) {
		return 0, 0
	}
	for i := digits; i < len(text); i++ {
		if text[i] == ';' && i > digits && isXMLChar(r) {
			return r, i + 1
		}
		digit, ok := digitValue(text[i], base)
		if !ok {
			break
		}
		if r = r*base + digit; r > utf8.MaxRune {
			break
		}
	}
	return 0, 0
}

func digitValue(char byte, base rune) (rune, bool) {
	switch lower := char | 0x20; {
	case '0' <= char && char <= '9':
		return rune(char - '0'), true
	case base == 16 && 'a' <= lower && lower <= 'f':
		return rune(lower-'a') + 10, true
	}
	return 0, false
}

// isXMLChar reports whether XML allows r at all.
func isXMLChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || 0x20 <= r && r <= 0xd7ff || 0xe000 <= r && r <= 0xfffd ||
		0x10000 <= r && r <= utf8.MaxRune
}
