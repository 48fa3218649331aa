//go:build systemd

package systemd

import (
	"slices"
	"strings"

	"campaign-credsync/test/world"
)

// look finds secrets and halves of them, plain or in an encoding that logs and protocols use. It reads a text once, however many there are.
type look struct {
	begins [1 << 16]bool // by the first two bytes of a form
	forms  map[string][]form
}

// form is one in which a secret may show. It is found by its first bytes.
type form struct {
	text   string
	secret int
}

const formKey = 8 // bytes; no form is shorter

func lookFor(secrets ...string) *look {
	l := &look{forms: map[string][]form{}}
	for i, secret := range secrets {
		for _, text := range world.FormsOf(secret) {
			l.begins[int(text[0])<<8|int(text[1])] = true
			l.forms[text[:formKey]] = append(l.forms[text[:formKey]], form{text, i})
		}
	}
	return l
}

// in returns which secrets are in a text.
func (l *look) in(text string) (found []int) {
	for i := 0; i+formKey <= len(text); i++ {
		if !l.begins[int(text[i])<<8|int(text[i+1])] {
			continue
		}
		for _, f := range l.forms[text[i:i+formKey]] {
			if strings.HasPrefix(text[i:], f.text) && !slices.Contains(found, f.secret) {
				found = append(found, f.secret)
			}
		}
	}
	return found
}

// shows reports whether text has the secret.
func shows(text, secret string) bool { return len(lookFor(secret).in(text)) > 0 }
