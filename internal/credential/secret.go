package credential

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/url"
	"strings"
	"unicode/utf8"

	"campaign-credsync/internal/lazyregexp"
)

const redacted = "[redacted]"

// Secret is a text that cannot print. The text sits behind a func, so that neither %d, nor a marshaller, nor
// reflection over a struct that holds a Secret in an unexported field finds it: a string type with a String method
// leaks through all three. The zero Secret is the empty text.
type Secret struct{ text func() string }

// NewSecret wraps text.
func NewSecret(text string) Secret {
	return Secret{text: func() string { return text }}
}

// Reveal returns the text. Each caller is a place where the secret leaves the process or is compared.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return s.text()
}

// IsZero reports whether the text is empty.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Format serves every verb of package fmt, and log/slog.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalText serves encoders, such as that of the effective configuration.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Redact replaces every secret in text, as it is and as URL, XML, JSON, Go, base64 and hexadecimal encoding would show it.
func Redact(text string, secrets ...Secret) string {
	for _, s := range secrets {
		plain := s.Reveal()
		if plain == "" {
			continue
		}
		for _, form := range forms(plain) {
			text = strings.ReplaceAll(text, form, redacted)
		}
	}
	return text
}

func forms(plain string) []string {
	var asXML strings.Builder
	xml.EscapeText(&asXML, []byte(plain))
	asJSON, _ := json.Marshal(plain) // a string always marshals
	asHex := hex.EncodeToString([]byte(plain))
	return []string{
		plain,
		asXML.String(),
		url.QueryEscape(plain),
		url.PathEscape(plain),
		strings.Trim(string(asJSON), `"`),
		base64.RawStdEncoding.EncodeToString([]byte(plain)),
		base64.RawURLEncoding.EncodeToString([]byte(plain)),
		asHex,
		strings.ToUpper(asHex),
	}
}

// Escape makes text from outside safe for a terminal and a line of a log: control characters and bytes that are not
// UTF-8 are written as Go escapes, line ends as " | ".
func Escape(text string) string {
	var b strings.Builder
	for i, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if i > 0 {
			b.WriteString(" | ")
		}
		quoted := fmt.Sprintf("%q", strings.TrimSpace(line))
		quoted = quoted[1 : len(quoted)-1]
		// %q also escapes quotes and backslashes, which are harmless and common in messages.
		b.WriteString(strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted))
	}
	return b.String()
}

// maxClean bounds what [Clean] keeps of a text, in bytes.
const maxClean = 300

// knownShapes are secrets by their look, whosever they are: Vault's tokens, Adobe's client secrets, and UUIDs, which old
// client secrets, role-ids and secret-ids are. So no secret has to be kept only to be recognised.
var knownShapes = lazyregexp.New(`\b(?:hv[sbr]\.[A-Za-z0-9_-]{8,}|[sbr]\.[A-Za-z0-9]{24}|p8e-[A-Za-z0-9_-]{8,}|` +
	`[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12})`)

// Clean makes text from a server fit for an error or a log line: redacted, escaped and short.
func Clean(text string, hide ...Secret) string {
	text = knownShapes().ReplaceAllString(Redact(text, hide...), redacted)
	return Cut(Escape(text), maxClean)
}

// maxLine bounds the text of an error that may hold what others answered, in bytes.
const maxLine = 4 << 10

// OneLine makes one line of an error's text, as errors may be joined.
func OneLine(text string) string { return Cut(strings.ReplaceAll(text, "\n", "; "), maxLine) }

// Cut shortens a text to at most limit bytes, and shows that it did.
func Cut(text string, limit int) string {
	const mark = "…"
	if len(text) <= limit {
		return text
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}
