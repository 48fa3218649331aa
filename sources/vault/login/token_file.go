package login

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
)

const (
	// maxTokenWarn is the most that the end of a token in a file is warned of before; it is a quarter of the token's time.
	maxTokenWarn = 7 * 24 * time.Hour
	// tokenLookAgain is when Vault is asked again that did not answer.
	tokenLookAgain = time.Minute
)

// tokenFile is the method token_file: somebody else looks after the token, renews it and revokes it, and we never do.
type tokenFile struct {
	Config

	token  *Token
	look   time.Time // when to ask Vault for its end; zero: never again
	warned bool
}

// login returns the token as the file has it now.
func (f *tokenFile) login(ctx context.Context) (*Token, error) {
	text, err := readLine(f.Auth.TokenFile, "vault.auth.token_file")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if f.token == nil || f.token.Text.Reveal() != text {
		f.token, f.look = &Token{Text: credential.NewSecret(text), Born: now}, now
	}
	if !f.look.IsZero() && !now.Before(f.look) {
		f.look = f.lookUp(ctx, now)
	}
	return f.token, nil
}

// lookUp asks for the end that the token has by now, and returns when to ask again. A policy may forbid the question: without
// an answer the end stays as it was, or unknown.
func (f *tokenFile) lookUp(ctx context.Context, now time.Time) (again time.Time) {
	var answer struct {
		Data struct {
			Expires time.Time `json:"expire_time"` // zero: never
			TTL     int64     `json:"creation_ttl"`
			Period  int64     `json:"period"`
		} `json:"data"`
	}
	_, err := f.Connection.Do(ctx, connection.Request{
		Step: "look up the token", Path: "auth/token/lookup-self", Namespace: f.Auth.Namespace, Token: f.token.Text,
	}, &answer)
	end := answer.Data.Expires
	switch {
	case err != nil && connection.Answer(err).Status != http.StatusForbidden:
		return now.Add(tokenLookAgain)
	case err != nil || end.IsZero():
		return time.Time{}
	}
	if !end.Equal(f.token.Expires) {
		renewed := *f.token
		renewed.Expires, f.token, f.warned = end, &renewed, false
	}
	life := time.Duration(cmp.Or(answer.Data.Period, answer.Data.TTL)) * time.Second
	if left := end.Sub(now); left <= min(life/4, maxTokenWarn) && !f.warned {
		f.warned = true
		f.Logger.Warn("the token ends soon and nobody has renewed it; renew it, or put a new one there, as nothing is read from "+
			"vault after its end", "file", f.Auth.TokenFile, "expires", end.UTC().Format(time.RFC3339))
	}
	return now.Add(max(end.Sub(now)/4, time.Second)) // as somebody may renew it
}
