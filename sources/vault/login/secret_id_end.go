package login

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
)

// endTimeout bounds the question for the end, as polls wait for the login.
const endTimeout = 3 * time.Second

// warnOfEnd warns when the end of the secret-id is near that t was got with. Otherwise it has another login made when it is, which
// asks again. role is what Vault calls the role. Without an answer nothing is said: a policy may forbid the question.
func (m *Method) warnOfEnd(ctx context.Context, t *Token, secretID credential.Secret, role string) {
	if connection.CheckPath(role) != nil || strings.Contains(role, "/") {
		return
	}
	var answer struct {
		Data struct {
			End time.Time `json:"expiration_time"` // zero: never
		} `json:"data"`
	}
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	_, err := m.connection.Do(ctx, connection.Request{
		Step: "look up the secret-id", Path: "auth/" + m.auth.Mount + "/role/" + role + "/secret-id/lookup",
		Body:      map[string]string{"secret_id": secretID.Reveal()},
		Namespace: m.auth.Namespace, Token: t.Text, Hide: []credential.Secret{secretID},
	}, &answer)
	end := answer.Data.End
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
