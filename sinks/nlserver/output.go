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
	"unicode/utf8"

	"campaign-credsync/internal/credential"
)

// captureHalf is how many bytes are kept of the beginning and of the end of an output.
const captureHalf = 32 << 10

// summaryLength and excerptLength are how many characters of an output go into an error, and into a debug line.
const (
	summaryLength = 500
	excerptLength = 4000
)

// capture keeps the beginning and the end of what is written to it and forgets the rest, so that an endless output
// neither fills the memory nor blocks who writes it. Not safe for concurrent use.
type capture struct {
	half  int
	head  []byte
	tail  []byte
	total int64
}

func newCapture(half int) *capture { return &capture{half: half} }

// Write never fails.
func (c *capture) Write(p []byte) (int, error) {
	n := len(p)
	c.total += int64(n)
	if room := c.half - len(c.head); room > 0 {
		taken := min(room, n)
		c.head = append(c.head, p[:taken]...)
		p = p[taken:]
	}
	if len(p) > c.half {
		p = p[len(p)-c.half:]
	}
	c.tail = append(c.tail, p...)
	if len(c.tail) > 2*c.half { // moved now and then only: amortised, each byte once
		c.tail = append(c.tail[:0], c.tail[len(c.tail)-c.half:]...)
	}
	return n, nil
}

// bytes returns everything, and whether it is everything.
func (c *capture) bytes() ([]byte, bool) {
	return append(bytes.Clone(c.head), c.tail...), c.total == int64(len(c.head)+len(c.tail))
}

// text returns what was kept as redact leaves it. It is cut at ends of lines only, before it is redacted: a line that
// was cut may show a part of a secret that redact does not know. For the same reason a last line without an end is
// dropped when the output is not complete.
func (c *capture) text(complete bool, redact func(string) string) string {
	all, whole := c.bytes()
	if whole {
		if !complete {
			all = all[:afterLastLine(all)]
		}
		return redact(string(all))
	}
	head := c.head[:afterLastLine(c.head)]
	tail := c.tail
	if len(tail) > c.half {
		tail = tail[len(tail)-c.half:]
	}
	if i := bytes.IndexAny(tail, "\r\n"); i >= 0 {
		tail = tail[i+1:]
	} else {
		tail = nil
	}
	if !complete {
		tail = tail[:afterLastLine(tail)]
	}
	left := c.total - int64(len(head)) - int64(len(tail))
	return redact(string(head)) + fmt.Sprintf("[%d bytes left out]\n", left) + redact(string(tail))
}

func afterLastLine(text []byte) int { return bytes.LastIndexAny(text, "\r\n") + 1 }

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
			if shows(text, pemBody.ReplaceAllString(secret.Reveal(), "")) {
				return "[redacted], as it shows a secret in pieces or encoded " + strings.ReplaceAll(onlyKnown(text), "\n", " ") + "\n"
			}
		}
		return text
	}
}

// pemBody is what a private key consists of that is no secret.
var pemBody = regexp.MustCompile(`-----[A-Z ]+-----`)

// traceLength is how many characters of a secret in a row show it.
const traceLength = 8

// shows reports whether text holds a piece of secret as it is, in base64 or in hexadecimal, also where it is part of something
// longer, escaped, spaced or broken over lines: what separates its characters is not compared.
func shows(text, secret string) bool {
	if len(secret) < traceLength {
		return false // found everywhere
	}
	inBase64 := make([]string, 3)
	for before := range inBase64 { // its place in the three bytes that make four digits
		all := append(make([]byte, before), secret...)
		// The digits at its ends are shared with what is beside it.
		inBase64[before] = base64.StdEncoding.EncodeToString(all)[(8*before+5)/6 : 8*len(all)/6]
	}
	plain := unescape(text)
	for _, form := range []struct {
		keep   func(string) string
		length int
		secret []string
	}{
		{onlyLetters, traceLength, []string{secret}},
		{onlyPrinted, traceLength, []string{secret}},
		{onlyBase64, traceLength, inBase64},
		{onlyHex, 2 * traceLength, []string{hex.EncodeToString([]byte(secret))}},
	} {
		pieces := map[string]bool{}
		for _, s := range form.secret {
			for s = form.keep(s); len(s) >= form.length; s = s[1:] {
				pieces[s[:form.length]] = true
			}
		}
		for _, t := range []string{form.keep(text), form.keep(plain)} {
			for ; len(t) >= form.length; t = t[1:] {
				if pieces[t[:form.length]] {
					return true
				}
			}
		}
	}
	return false
}

// onlyPrinted leaves out what separates, quotes and escapes.
func onlyPrinted(text string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 127 || strings.ContainsRune(`"'\\`+"`", r) {
			return -1
		}
		return r
	}, text)
}

func onlyLetters(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		}
		return -1
	}, text)
}

func onlyHex(text string) string {
	return strings.Map(func(r rune) rune {
		if r > 'f' {
			return -1
		}
		return r
	}, onlyLetters(strings.ReplaceAll(text, "0x", "")))
}

func onlyBase64(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '-':
			return '+'
		case r == '_':
			return '/'
		case r == '+' || r == '/' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z':
			return r
		}
		return -1
	}, text)
}

var escaped = regexp.MustCompile(`%[0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}|\\u00[0-9A-Fa-f]{2}`)

// unescape resolves what URLs, XML and programs escape.
func unescape(text string) string {
	return html.UnescapeString(escaped.ReplaceAllStringFunc(text, func(code string) string {
		n, _ := strconv.ParseUint(code[len(code)-2:], 16, 8) // two hexadecimal digits
		return string(rune(n))
	}))
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
	var found []string
	for _, phrase := range known.FindAllString(text, -1) {
		if !slices.Contains(found, phrase) && len(found) < 10 {
			found = append(found, phrase)
		}
	}
	return strings.Join(found, "\n")
}

// saying returns ": " and the lines of a redacted output that tell most, for the end of an error: those with an error
// code of Campaign, or else the last ones. It is empty when there are none.
func saying(text string) string {
	var lines, codes []string
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		lines = append(lines, line)
		if strings.Contains(line, "(iRc=") {
			codes = append(codes, line)
		}
	}
	if len(codes) == 0 {
		codes = lines[max(0, len(lines)-3):]
	}
	if len(codes) == 0 {
		return ""
	}
	return ": " + excerptOf(strings.Join(codes, "\n"), summaryLength)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexAny(text, "\r\n")+1:]
}

// excerptOf escapes a redacted text and leaves out its middle when it has more than limit characters.
func excerptOf(text string, limit int) string {
	text = credential.Escape(text)
	if utf8.RuneCountInString(text) <= limit {
		return text
	}
	runes := []rune(text)
	const gap = " … "
	begin := (limit - len([]rune(gap))) / 2
	end := limit - len([]rune(gap)) - begin
	return string(runes[:begin]) + gap + string(runes[len(runes)-end:])
}
