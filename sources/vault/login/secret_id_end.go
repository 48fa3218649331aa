package login

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
)

// endTimeout bounds the question for the end, as polls wait for the login.
const endTimeout = 3 * time.Second

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

// warnOfEnd warns when the end of the secret-id is near that t was got with. Otherwise it has another login made when it is, which
// asks again. Without an answer nothing is said: a policy may forbid the question.
func (m *Method) warnOfEnd(ctx context.Context, t *Token) {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	secretID, err := m.LookUpSecretID(ctx, t)
	end := secretID.Ends
	t.SecretIDEnds = end
	near := end.Add(-m.auth.SecretIDWarn)
	switch {
	case err != nil:
		m.logger.Debug("the secret-id's end is not known", "reason", err)
	case end.IsZero():
	case time.Now().Before(near):
		near = near.Add(rand.N(m.auth.SecretIDWarn/100 + 1)) // many hosts may have one of the same age
		if t.renew.IsZero() || near.Before(t.renew) {
			t.renew = near
		}
	case !end.Equal(m.warnedOf):
		m.warnedOf = end
		m.logger.Warn("the secret-id ends soon; put a new one there before, as no login works after", "file", m.auth.SecretIDFile,
			"expires", end.UTC().Format(time.RFC3339))
	}
}
