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
	// tokenLooks is how often, in that time, Vault is asked whether somebody has renewed the token.
	tokenLooks = 8
	// tokenLookAgain is when Vault is asked again that did not answer.
	tokenLookAgain = time.Minute
)

// tokenFile is the method token_file: somebody else looks after the token, renews it and revokes it, and we never do.
type tokenFile struct {
	Config

	token  *Token
	warn   time.Duration // so long before its end the token is warned of; zero: never, or its end is not known
	look   time.Time     // when to ask Vault for its end; zero: never again
	warned bool
}

// Login returns the token as the file has it now.
func (f *tokenFile) Login(ctx context.Context) (*Token, error) {
	text, err := readLine(f.Auth.TokenFile, "vault.auth.token_file")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if f.token == nil || f.token.Text.Reveal() != text {
		f.token = &Token{Text: credential.NewSecret(text), Born: now}
		f.look, f.warn = now, 0
	}
	if f.look.IsZero() || now.Before(f.look) {
		return f.token, nil
	}
	f.lookUp(ctx, now)
	if end := f.token.Expires; f.warn > 0 && end.Sub(now) < f.warn && !f.warned {
		f.warned = true
		f.Logger.Warn("the token ends soon and nobody has renewed it; renew it, or put a new one there, as nothing is read from "+
			"vault after its end", "file", f.Auth.TokenFile, "expires", end.UTC().Format(time.RFC3339))
	}
	return f.token, nil
}

// lookUp asks for the end that the token has by now. A policy may forbid the question: without an answer the end stays as it
// was, or unknown.
func (f *tokenFile) lookUp(ctx context.Context, now time.Time) {
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
	if err == nil && !end.IsZero() && !end.Equal(f.token.Expires) {
		renewed := *f.token
		renewed.Expires, f.token, f.warned = end, &renewed, false
		f.warn = min(time.Duration(cmp.Or(answer.Data.Period, answer.Data.TTL))*time.Second/4, maxTokenWarn)
	}
	switch {
	case f.warn > 0: // then and then again, as somebody may renew it
		f.look = now.Add(max(f.warn/tokenLooks, f.token.Expires.Sub(now)-f.warn))
	case err != nil && connection.Answer(err).Status != http.StatusForbidden:
		f.look = now.Add(tokenLookAgain)
	default:
		f.look = time.Time{}
	}
}

// Due says yes always.
func (f *tokenFile) Due() bool { return true }

// Renew says yes always: the file is read anew each time.
func (f *tokenFile) Renew(context.Context) bool { return true }

// Retry does nothing, as nothing is put off.
func (f *tokenFile) Retry(bool) {}

// Files is the file of the token.
func (f *tokenFile) Files() []string { return []string{f.Auth.TokenFile} }

// Close does nothing.
func (f *tokenFile) Close() {}
