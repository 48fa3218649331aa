package ims

import (
	"encoding/hex"
	"html"
	"strings"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
)

// clean makes words of IMS fit for an error. They are quoted as they are unless they hold a secret, or a piece of it, in an encoding that
// credential.Clean leaves: then nothing of them is.
func clean(text string, secrets ...credential.Secret) string {
	text = credential.Clean(text, secrets...)
	for _, s := range secrets {
		if holdsPiece(text, s.Reveal()) {
			return "[redacted]"
		}
	}
	return text
}

const (
	leastPiece = 8 // characters of a secret in a row, which are no word by chance
	encodings  = 3 // of a text in one another that are undone
)

// holdsPiece reports whether a text holds part of a secret, encoded or not.
func holdsPiece(text, secret string) bool {
	for range encodings + 1 {
		lower := strings.ToLower(text)
		for i := range max(0, len(secret)-leastPiece+1) {
			if strings.Contains(lower, strings.ToLower(secret[i:i+leastPiece])) {
				return true
			}
		}
		text = html.UnescapeString(percent().ReplaceAllStringFunc(text, func(encoded string) string {
			plain, _ := hex.DecodeString(encoded[1:])
			return string(plain)
		}))
	}
	return false
}

var percent = lazyregexp.New(`%[0-9A-Fa-f]{2}`)
