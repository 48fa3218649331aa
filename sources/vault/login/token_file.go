package login

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
)

const (
	// maxTokenWarn is the most that the end of a token in a file is warned of before; it is a quarter of the token's time.
	maxTokenWarn = 7 * 24 * time.Hour
	// tokenLooks is how often, in that time, Vault is asked whether somebody has renewed the token.
	tokenLooks = 8
)

// tokenFile is the method token_file: somebody else looks after the token, renews it and revokes it, and we never do.
type tokenFile struct {
	connection *connection.Connection
	path       string
	namespace  string
	logger     *slog.Logger

	token  *Token
	warn   time.Duration // so long before its end the token is warned of; zero: never, or its end is not known
	look   time.Time     // when to ask Vault for its end again
	warned time.Time
}

func newTokenFile(config Config) Method {
	return &tokenFile{
		connection: config.Connection, path: config.Auth.TokenFile, namespace: config.Auth.Namespace, logger: config.Logger,
	}
}

// Login returns the token as the file has it now.
func (f *tokenFile) Login(ctx context.Context) (*Token, error) {
	text, err := readLine(f.path, "vault.auth.token_file")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := f.token
	switch {
	case t == nil || t.Text.Reveal() != text:
		t = &Token{Text: credential.NewSecret(text), Born: now}
		f.warn, f.warned = 0, time.Time{}
	case f.warn == 0 || now.Before(f.look) || now.Before(t.Expires.Add(-f.warn)):
		return t, nil
	}
	t = f.lookUp(ctx, t, now)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("vault at %s: look up the token: %w", f.connection.Address(), ctx.Err())
	}
	if err := f.connection.Throttled(); err != nil {
		return nil, err
	}
	f.token = t
	if f.warn > 0 && t.Expires.Sub(now) < f.warn && now.Sub(f.warned) >= endAgain {
		f.warned = now
		f.logger.Warn("the token ends soon and nobody has renewed it; renew it, or put a new one there, as nothing is read from "+
			"vault after its end", "file", f.path, "expires", t.Expires.UTC().Format(time.RFC3339))
	}
	return t, nil
}

// lookUp returns t with the end that it has by now. A policy may forbid the question: without an answer the end stays as it
// was, or unknown.
func (f *tokenFile) lookUp(ctx context.Context, t *Token, now time.Time) *Token {
	var answer struct {
		Data struct {
			Expires time.Time `json:"expire_time"` // zero: never
			TTL     int64     `json:"creation_ttl"`
			Period  int64     `json:"period"`
		} `json:"data"`
	}
	_, err := f.connection.Do(ctx, connection.Request{
		Step: "look up the token", Path: "auth/token/lookup-self",
		Namespace: f.namespace, Token: t.Text, Read: true,
	}, &answer)
	f.look = now.Add(f.warn / tokenLooks)
	expires := answer.Data.Expires
	if err != nil || expires.IsZero() {
		return t
	}
	span := answer.Data.TTL
	if answer.Data.Period > 0 {
		span = answer.Data.Period
	}
	f.warn = min(time.Duration(span)*time.Second/4, maxTokenWarn)
	f.look = now.Add(f.warn / tokenLooks)
	if expires.Equal(t.Expires) {
		return t
	}
	renewed := *t
	renewed.Expires, f.warned = expires, time.Time{}
	return &renewed
}

// Renew says yes always: the file is read anew each time.
func (f *tokenFile) Renew(context.Context) bool { return true }

// ResetBackoff does nothing, as nothing is put off.
func (f *tokenFile) ResetBackoff() {}

// RetryRefused does nothing, as nothing is put off.
func (f *tokenFile) RetryRefused() {}

// Files is the file of the token.
func (f *tokenFile) Files() []string { return []string{f.path} }

// Close does nothing.
func (f *tokenFile) Close() {}
