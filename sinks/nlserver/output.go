package nlserver

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"campaign-credsync/internal/credential"
)

const (
	// captureLimit is how many bytes are kept of an output.
	captureLimit = 512 << 10
	// summaryLength and excerptLength are how many characters of an output go into an error, and into a debug line.
	summaryLength = 500
	excerptLength = 4000
)

// capture keeps the end of what is written to it, so that an endless output neither fills the memory nor blocks who writes it.
// Not safe for concurrent use.
type capture struct {
	limit int
	kept  []byte
	total int
}

// Write never fails.
func (c *capture) Write(p []byte) (int, error) {
	c.total += len(p)
	c.kept = append(c.kept, p[max(0, len(p)-c.limit):]...)
	if len(c.kept) > 2*c.limit { // moved now and then only
		c.kept = append(c.kept[:0], c.kept[len(c.kept)-c.limit:]...)
	}
	return len(p), nil
}

// whole reports whether nothing was left out.
func (c *capture) whole() bool { return c.total == len(c.kept) }

// text returns what was kept as redact leaves it. It is cut at ends of lines only, before it is redacted: a line that
// was cut may show a part of a secret that redact does not know. For the same reason a last line without an end is
// dropped when the output is not complete.
func (c *capture) text(complete bool, redact func(string) string) string {
	kept, note := c.kept, ""
	if !c.whole() {
		_, kept, _ = bytes.Cut(bytes.ReplaceAll(kept[max(0, len(kept)-c.limit):], []byte("\r"), []byte("\n")), []byte("\n"))
		note = fmt.Sprintf("[%d bytes left out]\n", c.total-len(kept))
	}
	if !complete {
		kept = kept[:bytes.LastIndexAny(kept, "\r\n")+1]
	}
	return note + redact(string(kept))
}

// redactor returns what takes the secrets of c out of an output. key is the private key as it stands in the arguments. What shows a
// secret in an unusual form is left out whole, except for what onlyKnown leaves.
func redactor(c credential.Credential, key string) func(string) string {
	secrets := []credential.Secret{c.ClientSecret, c.PrivateKey, credential.NewSecret(key)}
	// What follows the account in an argument is secret even where nlserver cut it short.
	argument := regexp.MustCompile(regexp.QuoteMeta(c.TechnicalAccountID) + `/\S+`)
	return func(text string) string {
		text = credential.Redact(text, secrets...)
		text = redactShapes(argument.ReplaceAllLiteralString(text, c.TechnicalAccountID+"/[redacted]"))
		for _, secret := range secrets {
			if shows(text, pemMarks.ReplaceAllString(secret.Reveal(), "")) {
				return "[redacted], as it shows a secret in pieces or encoded " + strings.ReplaceAll(onlyKnown(text), "\n", " ") + "\n"
			}
		}
		return text
	}
}

// pemMarks are what a private key consists of that is no secret.
var pemMarks = regexp.MustCompile(`-----[A-Z ]+-----`)

// traceLength is how many characters of a secret in a row show it.
const traceLength = 8

// shows reports whether text holds a piece of secret as it is, in base64 or in hexadecimal, also where it is part of something
// longer, escaped, spaced or broken over lines: what separates its characters is not compared.
func shows(text, secret string) bool {
	if len(secret) < traceLength {
		return false // found everywhere
	}
	encoded := []string{secret}
	for before := range 3 { // its place in the three bytes that make four digits
		all := append(make([]byte, before), secret...)
		// The digits at its ends are shared with what is beside it.
		encoded = append(encoded, base64.StdEncoding.EncodeToString(all)[(8*before+5)/6:8*len(all)/6])
	}
	plain := html.UnescapeString(escaped.ReplaceAllStringFunc(text, func(code string) string {
		n, _ := strconv.ParseUint(code[len(code)-2:], 16, 8) // two hexadecimal digits
		return string(rune(n))
	}))
	for _, t := range []string{text, plain} {
		if hasPiece(letters(strings.ReplaceAll(t, "0x", "")), letters(hex.EncodeToString([]byte(secret))), 2*traceLength) ||
			hasPiece(printed(t), printed(secret), traceLength) {
			return true
		}
		for _, form := range encoded {
			if hasPiece(letters(t), letters(form), traceLength) {
				return true
			}
		}
	}
	return false
}

var escaped = regexp.MustCompile(`%[0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}|\\u00[0-9A-Fa-f]{2}`)

// hasPiece reports whether text holds so many characters in a row of secret.
func hasPiece(text, secret string, length int) bool {
	pieces := map[string]bool{}
	for ; len(secret) >= length; secret = secret[1:] {
		pieces[secret[:length]] = true
	}
	for ; len(pieces) > 0 && len(text) >= length; text = text[1:] {
		if pieces[text[:length]] {
			return true
		}
	}
	return false
}

// letters leaves letters and digits, in lower case.
func letters(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(text))
}

// printed leaves out what separates, quotes and escapes.
func printed(text string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 127 || strings.ContainsRune(`"'\\`+"`", r) {
			return -1
		}
		return r
	}, text)
}

// secretShapes are secrets by their looks, also such that this process does not know.
var secretShapes = regexp.MustCompile(`(-setims\w*:)\S+|p8e-[A-Za-z0-9_-]{8,}|LS0tLS1CRUdJT[A-Za-z0-9+/=_-]*`)

func redactShapes(text string) string {
	return secretShapes.ReplaceAllString(text, "${1}[redacted]")
}

// data is what is no word and no path: at least 20 characters in a row, at least 6 with digits and letters in them, a percent
// code, or very short pieces in a row. Secrets look so, in any encoding.
var data = regexp.MustCompile(`[\w%+=-]{20,}|[\w+=-]*([A-Za-z][\w+=-]*\d|\d[\w+=-]*[A-Za-z])[\w+=-]*|\S*%[0-9A-Fa-f]{2}\S*|(\b\w{1,2}\W+){6,}`)

// redactUnknown is for the output of what was given no secret and may know one all the same.
func redactUnknown(text string) string {
	return data.ReplaceAllStringFunc(redactShapes(text), func(piece string) string {
		if len(piece) < 6 || strings.Trim(piece, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == "" { // or a variable's name
			return piece
		}
		return "[redacted]"
	})
}

// known are codes of Campaign's and phrases that tell what is wrong.
var known = regexp.MustCompile(`\(iRc=-?\d{1,7}\)|No task corresponds to the mask|error while loading shared libraries|cannot open shared object file|` +
	`No such file or directory|Permission denied|not found|Connection refused|No space left on device|Out of memory`)

// onlyKnown leaves of a text what is known, each once: for the output of what may print a secret that this process does not know.
func onlyKnown(text string) string {
	found := known.FindAllString(text, 10)
	slices.Sort(found)
	return strings.Join(slices.Compact(found), "\n")
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
	return ": " + excerptOf(strings.Join(codes, "\n"), summaryLength)
}

// excerptOf escapes a redacted text and leaves out its middle when it has more than limit characters.
func excerptOf(text string, limit int) string {
	const gap = " … "
	runes := []rune(credential.Escape(text))
	if len(runes) <= limit {
		return string(runes)
	}
	half := (limit - len([]rune(gap))) / 2
	return string(runes[:half]) + gap + string(runes[len(runes)-half:])
}
