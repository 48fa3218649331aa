package nlserver

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
)

// maxSaid is how many bytes of an output go into an error or a line of the log.
const maxSaid = 500

// tail keeps the end of what is written to it, from the begin of a line, so that an endless output neither fills the memory nor blocks
// who writes it. Not safe for concurrent use.
type tail struct {
	limit int // bytes that are kept at least
	kept  []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if len(t.kept) > 2*t.limit { // moved now and then only
		_, end, _ := bytes.Cut(t.kept[len(t.kept)-t.limit:], []byte("\n"))
		t.kept = append(t.kept[:0], end...)
	}
	return len(p), nil
}

const redacted = "[redacted]"

var (
	piece = lazyregexp.New(`\S+`)
	// spaced is a text whose characters were set apart.
	spaced = lazyregexp.New(`(^|\s)(\S{1,2}(\s+|$)){6,}`)
	// plain is a word, a name or a path of words, a short number, a time, or a code of Campaign's. No secret looks so, whether whole,
	// cut short, in pieces or encoded: one of random characters has digits, or capitals within words.
	plain = lazyregexp.New(`^[-/.("'\[<{]*(` +
		word + `([-_./:'=@]` + word + `)*|\d{1,5}([.:/]\d{1,4}){0,3}|[A-Z]{3}-\d{6}|\(iRc=-?\d{1,7})?[^\pL\pN\s]{0,3}$`)
)

const word = `([A-Z]?\p{Ll}{1,15}|\p{Ll}{2,15}\d|[A-Z]{1,8})`

// redact leaves of an output what is plain and holds no secret. An output that is not UTF-8 is in Campaign's default encoding.
func redact(text string, secrets ...credential.Secret) string {
	if !utf8.ValidString(text) {
		text, _ = charmap.ISO8859_15.NewDecoder().String(text) // every byte stands for something
	}
	text = spaced().ReplaceAllString(credential.Redact(text, secrets...), "\n"+redacted+"\n")
	return piece().ReplaceAllStringFunc(text, func(p string) string {
		if plain().MatchString(p) {
			return p
		}
		return redacted
	})
}

// saying returns ": " and the lines of a redacted output that tell most, for the end of an error: those with an error
// code of Campaign, or else the last ones. It is empty when there are none.
func saying(text string) string {
	lines := slices.DeleteFunc(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }),
		func(line string) bool { return strings.TrimSpace(line) == "" })
	codes := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return !strings.Contains(line, "(iRc=") })
	if len(codes) == 0 {
		codes = lines[max(0, len(lines)-3):]
	}
	if len(codes) == 0 {
		return ""
	}
	return ": " + excerpt(strings.Join(codes, "\n"))
}

// excerpt escapes the begin of a redacted text.
func excerpt(text string) string {
	return credential.Cut(credential.Escape(text), maxSaid)
}
