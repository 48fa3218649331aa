package sinks

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
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

// redactor returns what takes the secrets of c out of an output. key is the private key as it stands in the arguments.
// A key is also looked for line by line: programs print a PEM with something in front of each line.
func redactor(c credential.Credential, key string) func(string) string {
	secrets := []credential.Secret{c.ClientSecret, c.PrivateKey}
	if key != "" {
		pem := c.PrivateKey.Reveal()
		secrets = append(secrets, credential.NewSecret(key), credential.NewSecret(strings.TrimRight(pem, "\r\n")))
		for _, line := range strings.FieldsFunc(pem, func(r rune) bool { return r == '\n' || r == '\r' }) {
			// A shorter one is a last line with a few bytes, whose removal would only spoil the text around it.
			if line = strings.TrimSpace(line); len(line) >= 8 && !strings.HasPrefix(line, "-----") {
				secrets = append(secrets, credential.NewSecret(line))
			}
		}
	}
	patterns := []*regexp.Regexp{}
	for _, secret := range append(inBase64(c.ClientSecret.Reveal()), c.ClientSecret.Reveal(), key) {
		if len(secret) >= shortestPiece {
			patterns = append(patterns, broken(secret))
		}
	}
	// What follows the account in an argument is secret even where nlserver cut it short.
	argument := regexp.MustCompile(regexp.QuoteMeta(c.TechnicalAccountID) + `/\S+`)
	return func(text string) string {
		text = credential.Redact(text, secrets...)
		for _, pattern := range patterns {
			text = pattern.ReplaceAllLiteralString(text, "[redacted]")
		}
		text = argument.ReplaceAllLiteralString(text, c.TechnicalAccountID+"/[redacted]")
		return redactShapes(text)
	}
}

// shortestPiece is the length from which on a text is looked for in unusual forms: what is shorter is found everywhere.
const shortestPiece = 8

// broken finds secret also where it was broken over lines, as terminals and quoting programs do.
func broken(secret string) *regexp.Regexp {
	var pattern strings.Builder
	for i, r := range secret {
		if i > 0 {
			pattern.WriteString(`[\\\s]*`)
		}
		pattern.WriteString(regexp.QuoteMeta(string(r)))
	}
	return regexp.MustCompile(pattern.String())
}

// inBase64 is how secret looks as a part of something longer in base64: it depends on where in three bytes it starts, and
// the digits at its ends are shared with what is beside it.
func inBase64(secret string) []string {
	var forms []string
	for before := range 3 {
		all := append(make([]byte, before), secret...)
		own := base64.StdEncoding.EncodeToString(all)[(8*before+5)/6 : 8*len(all)/6]
		forms = append(forms, own, strings.NewReplacer("+", "-", "/", "_").Replace(own))
	}
	return forms
}

// secretShapes are secrets by their looks, also such that this process does not know: a reload may print what another
// one set.
var secretShapes = regexp.MustCompile(`(-setims\w*:)\S+|p8e-[A-Za-z0-9_-]{8,}|LS0tLS1CRUdJT[A-Za-z0-9+/=_-]*`)

func redactShapes(text string) string {
	return secretShapes.ReplaceAllString(text, "${1}[redacted]")
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
