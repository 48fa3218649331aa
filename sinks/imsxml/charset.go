package imsxml

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
)

// ErrUnsupported says that a file may be whole, and cannot be read here.
var ErrUnsupported = errors.New("the instance's configuration file has a form that is not supported here")

const utf8BOM = "\xef\xbb\xbf"

// charsets are the encodings of Campaign's files, by the names that an XML declaration gives them. All hold ASCII as it is.
var charsets = map[string]*charmap.Charmap{
	"utf-8": nil, "utf8": nil,
	"iso-8859-1": charmap.ISO8859_1, "iso8859-1": charmap.ISO8859_1, "iso_8859-1": charmap.ISO8859_1, "latin1": charmap.ISO8859_1,
	"iso-8859-15": charmap.ISO8859_15, "iso8859-15": charmap.ISO8859_15,
	"windows-1252": charmap.Windows1252, "cp1252": charmap.Windows1252,
}

// declaration is the XML declaration. Versions above 1.0 are read as 1.0, as XML 1.0 has it.
var declaration = lazyregexp.New(`^<\?xml\s+version\s*=\s*(?:"1\.[0-9]+"|'1\.[0-9]+')` +
	`(?:\s+encoding\s*=\s*("[^"]*"|'[^']*'))?(?:\s+standalone\s*=\s*(?:"yes"|"no"|'yes'|'no'))?\s*\?>`)

// charsetOf returns the encoding of a file, and where the document begins behind its declaration.
func charsetOf(data []byte) (charset *charmap.Charmap, start int, err error) {
	const refused = "the encoding is none of UTF-8, ISO-8859-1, ISO-8859-15 and windows-1252 (save the file as UTF-8, and declare that)"
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) { // marks of UTF-16 and UTF-32
		return nil, 0, fault(ErrUnsupported, "", refused)
	}
	document := bytes.TrimPrefix(data, []byte(utf8BOM))
	mark := len(data) - len(document)
	found := declaration().FindSubmatchIndex(document)
	switch {
	case found == nil:
		return nil, mark, nil
	case found[2] < 0:
		return nil, mark + found[1], nil
	}
	name := document[found[2]+1 : found[3]-1]
	charset, known := charsets[strings.ToLower(string(name))]
	if !known {
		return nil, 0, fault(ErrUnsupported, string(document[:found[2]+1]), refused)
	}
	if mark > 0 { // is believed by libxml2 too, whatever else is declared
		charset = nil
	}
	return charset, mark + found[1], nil
}

// decode returns data as UTF-8, in which every character is one that XML allows. Two different files never read alike.
func decode(charset *charmap.Charmap, data []byte) (string, error) {
	text := string(data)
	if !slices.ContainsFunc(data, func(char byte) bool { return char >= utf8.RuneSelf || !isXMLChar(rune(char)) }) {
		return text, nil // is the same in every encoding here
	}
	if charset != nil {
		var b strings.Builder
		for _, char := range data {
			b.WriteRune(characterOf(charset, char))
		}
		text = b.String()
	}
	for i, char := range text {
		invalid := char == utf8.RuneError && (charset != nil || !strings.HasPrefix(text[i:], string(utf8.RuneError)))
		if invalid || !isXMLChar(char) {
			return "", fault(credential.ErrDamaged, text[:i], "a byte that the encoding does not have, or a control character (NUL: the file "+
				"was probably cut off when the power failed)")
		}
	}
	return text, nil
}

// characterOf is what a byte stands for; utf8.RuneError: nothing. charmap leaves out the control characters of ISO-8859-15.
func characterOf(charset *charmap.Charmap, char byte) rune {
	r := charset.DecodeByte(char)
	if r == utf8.RuneError && charset == charmap.ISO8859_15 {
		return rune(char)
	}
	return r
}

// encode is the reverse of decode. A character that the file's encoding does not have becomes a reference.
func encode(charset *charmap.Charmap, text []byte) []byte {
	if charset == nil {
		return text
	}
	var b bytes.Buffer
	for _, char := range string(text) {
		encoded, ok := charset.EncodeRune(char)
		switch {
		case ok:
			b.WriteByte(encoded)
		case char <= 0xff && characterOf(charset, byte(char)) == char:
			b.WriteByte(byte(char))
		default:
			fmt.Fprintf(&b, "&#%d;", char)
		}
	}
	return b.Bytes()
}

// fault makes the error for what is wrong behind text. Columns count characters.
func fault(kind error, text, what string) error {
	text = strings.TrimPrefix(text, utf8BOM)
	line := text[strings.LastIndexByte(text, '\n')+1:]
	return fmt.Errorf("%w: %d:%d: %s", kind, 1+strings.Count(text, "\n"), 1+utf8.RuneCountInString(line), what)
}

// isXMLChar reports whether XML allows char at all.
func isXMLChar(char rune) bool {
	return 0x20 <= char && char <= 0xd7ff || char == '\t' || char == '\n' || char == '\r' || 0xe000 <= char && char <= 0xfffd ||
		0x10000 <= char && char <= utf8.MaxRune
}
