package login

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/jitter"
	"campaign-credsync/sources/vault/connection"
)

const (
	// endTimeout bounds the question for the end, as polls wait for the login.
	endTimeout = 3 * time.Second
	// endLookAgain is when Vault is asked again that did not answer, jittered.
	endLookAgain = time.Minute
)

// SecretID is what Vault says of a secret-id.
type SecretID struct {
	Ends      time.Time `json:"expiration_time"` // zero: never
	Addresses []string  `json:"cidr_list"`       // from which it may be used; none: any
}

// ErrNoSecretID is what LookUpSecretID says of a token that was got without one, or without a role that Vault names.
var ErrNoSecretID = errors.New("the login has no secret-id")

// LookUpSecretID asks for the secret-id that t was got with. A policy may forbid the question.
func (m *Method) LookUpSecretID(ctx context.Context, t *Token) (SecretID, error) {
	var answer struct {
		Data SecretID `json:"data"`
	}
	path := m.RolePath(t)
	if path == "" || t.secretID.IsZero() {
		return answer.Data, ErrNoSecretID
	}
	_, err := m.connection.Do(ctx, connection.Request{
		Step: "look up the secret-id", Path: path + "/secret-id/lookup", Body: map[string]string{"secret_id": t.secretID.Reveal()},
		Namespace: m.auth.Namespace, Token: t.Text, Hide: []credential.Secret{t.secretID},
	}, &answer)
	return answer.Data, err
}

// RolePath is where Vault has the AppRole role that t was got with; empty: none that it names.
func (m *Method) RolePath(t *Token) string {
	if m.auth.Method != "approle" || connection.CheckPath(t.role) != nil || strings.Contains(t.role, "/") {
		return ""
	}
	return "auth/" + m.auth.Mount + "/role/" + t.role
}

// secretIDEnd is what is known of the end of a secret-id.
type secretIDEnd struct {
	of   credential.Secret
	at   time.Time // zero: never, or not known
	look time.Time // when to ask Vault for it again; zero: not
}

// isDue reports whether Vault is to be asked. e may be nil.
func (e *secretIDEnd) isDue() bool { return e != nil && !e.look.IsZero() && !time.Now().Before(e.look) }

// SecretIDEnds returns when the secret-id of the last login ends. Zero: never, or not known.
func (m *Method) SecretIDEnds() time.Time {
	if e := m.end.Load(); e != nil {
		return e.at
	}
	return time.Time{}
}

// warnOfEnd warns when the end of the secret-id is near that t was got with. Otherwise Vault is asked again then, and soon where it did
// not answer. A policy may forbid the question: then nothing is said.
func (m *Method) warnOfEnd(ctx context.Context, t *Token) {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	e := secretIDEnd{of: t.secretID}
	if known := m.end.Load(); known != nil && known.of.Reveal() == e.of.Reveal() {
		e.at = known.at
	}
	asking := e
	m.end.Store(&asking) // not due, so the polls that come meanwhile do not wait
	secretID, err := m.LookUpSecretID(ctx, t)
	if err == nil {
		e.at = secretID.Ends
	}
	near := e.at.Add(-m.auth.SecretIDWarn)
	switch {
	case err != nil:
		m.logger.Debug("the secret-id's end is not known", "reason", err)
		if connection.Answer(err).Status != http.StatusForbidden && !errors.Is(err, ErrNoSecretID) {
			e.look = time.Now().Add(jitter.Around(endLookAgain))
		}
	case e.at.IsZero():
	case time.Now().Before(near):
		e.look = near.Add(rand.N(m.auth.SecretIDWarn/100 + 1)) // many hosts may have one of the same age
	case !e.at.Equal(m.warnedOf):
		m.warnedOf = e.at
		m.logger.Warn("the secret-id ends soon; put a new one there before, as no login works after", "file", m.auth.SecretIDFile,
			"expires", e.at.UTC().Format(time.RFC3339))
	}
	m.end.Store(&e)
}
