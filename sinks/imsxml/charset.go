package imsxml

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// charset is the encoding of a document. All of them hold ASCII as it is, so that markup can be found byte by byte.
type charset int

const (
	charsetUTF8 charset = iota // what XML has where nothing is said
	charsetASCII
	charsetLatin1
	// charsetOpaque is another single-byte encoding. Campaign's names and ciphertexts are ASCII, so a table of what the other
	// bytes mean would serve nobody: such a byte may stand in values and text, where it is told apart from others and put back
	// as it was, and not in a name.
	charsetOpaque
	charsetWindows1252 // a charsetOpaque in which some bytes are no characters
)

// charsets are the encodings of Campaign's files, by the names that an XML declaration gives them.
var charsets = map[string]charset{
	"utf-8": charsetUTF8, "utf8": charsetUTF8, "us-ascii": charsetASCII, "ascii": charsetASCII,
	"iso-8859-1": charsetLatin1, "iso8859-1": charsetLatin1, "iso_8859-1": charsetLatin1, "latin1": charsetLatin1,
	"iso-8859-15": charsetOpaque, "iso8859-15": charsetOpaque, "windows-1252": charsetWindows1252, "cp1252": charsetWindows1252,
}

// undefined are the bytes that windows-1252 has no character for.
const undefined = "\x81\x8d\x8f\x90\x9d"

func (c charset) singleByte() bool { return c >= charsetLatin1 }

func (c charset) opaque() bool { return c >= charsetOpaque }

// text decodes raw. In a charsetOpaque each byte outside ASCII stands for itself: that is not its meaning, and keeps
// different texts different.
func (c charset) text(raw []byte) string {
	if !c.singleByte() {
		return string(raw)
	}
	var b strings.Builder
	for _, char := range raw {
		b.WriteRune(rune(char))
	}
	return b.String()
}

// firstIllegal returns the offset of the first byte that is no part of a character which XML allows, or -1.
func (c charset) firstIllegal(data []byte) int {
	for i, char := range data {
		if char < ' ' && !isSpace[char] {
			return i
		}
	}
	switch c {
	case charsetASCII:
		return bytes.IndexFunc(data, func(r rune) bool { return r >= utf8.RuneSelf })
	case charsetWindows1252:
		return slices.IndexFunc(data, func(char byte) bool { return strings.IndexByte(undefined, char) >= 0 })
	case charsetLatin1, charsetOpaque:
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
	for _, none := range []string{"\ufffe", "\uffff"} { // proper UTF-8, and no XML
		if i := bytes.Index(data, []byte(none)); i >= 0 {
			return i
		}
	}
	return -1
}

// nameLength returns how many bytes at the start of data are a name.
func (c charset) nameLength(data []byte) int {
	length, wide := 0, false
	for length < len(data) && (isName[data[length]] || data[length] >= utf8.RuneSelf) {
		wide = wide || data[length] >= utf8.RuneSelf
		length++
	}
	if length == 0 || strings.IndexByte("-.0123456789", data[0]) >= 0 ||
		wide && (c.opaque() || !wideName.MatchString(c.text(data[:length]))) {
		return 0
	}
	return length
}

// wideName is a name with characters outside ASCII, from XML 1.0, fifth edition. U+FFFD is left out: it says that a character was
// lost.
var wideName = func() *regexp.Regexp {
	const start = `:A-Z_a-z\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{2FF}\x{370}-\x{37D}\x{37F}-\x{1FFF}\x{200C}-\x{200D}\x{2070}-\x{218F}` +
		`\x{2C00}-\x{2FEF}\x{3001}-\x{D7FF}\x{F900}-\x{FDCF}\x{FDF0}-\x{FFFC}\x{10000}-\x{EFFFF}`
	return regexp.MustCompile(`^[` + start + `][` + start + `.0-9\x{B7}\x{300}-\x{36F}\x{203F}-\x{2040}-]*$`)
}()

// isName and isSpace tell what a byte of ASCII may be.
var (
	isName  = setOf("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:-.0123456789")
	isSpace = setOf(" \t\r\n")
)

func setOf(chars string) (set [256]bool) {
	for _, char := range []byte(chars) {
		set[char] = true
	}
	return set
}

// isXMLChar reports whether XML allows r at all.
func isXMLChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || 0x20 <= r && r <= 0xd7ff || 0xe000 <= r && r <= 0xfffd ||
		0x10000 <= r && r <= utf8.MaxRune
}
