package sources

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
)

const (
	// lookupTimeout bounds the question for a token's end, which nothing depends on.
	lookupTimeout = 5 * time.Second
	// tokenEndCap is the most that the end of a token in a file is warned of before; it is a quarter of the token's time.
	tokenEndCap = 7 * 24 * time.Hour
	// tokenLooks is how often, in that time, Vault is asked whether somebody has renewed the token.
	tokenLooks = 8
)

// tokenFile is the method token_file: somebody else looks after the token, renews it and revokes it, and we never do. It belongs to
// who has the session's turn.
type tokenFile struct {
	path   string
	warn   time.Duration // so long before its end the token in use is warned of; zero: never, or its end is not known
	look   time.Time     // when to ask Vault for its end again
	warned time.Time
}

// read returns the token as the file has it now.
func (f *tokenFile) read(ctx context.Context, s *session) (*token, error) {
	text, err := readLine(f.path, "vault.auth.token_file")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := s.get()
	switch {
	case t == nil || t.text.Reveal() != text:
		secret := credential.NewSecret(text)
		t = &token{client: withToken(s.vault.reads, secret), text: secret, born: now}
		f.warn, f.warned = 0, time.Time{}
	case f.warn == 0 || now.Before(f.look) || now.Before(t.expires.Add(-f.warn)):
		return t, nil
	}
	t = f.lookUp(ctx, s, t, now)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("vault at %s: look up the token: %w", s.vault.address, ctx.Err())
	}
	if err := s.vault.gate.closed(s.vault); err != nil {
		return nil, err
	}
	s.set(t)
	if f.warn > 0 && t.expires.Sub(now) < f.warn && now.Sub(f.warned) >= endAgain {
		f.warned = now
		s.vault.logger.Warn("the token ends soon and nobody has renewed it; renew it, or put a new one there, as nothing is read from "+
			"vault after its end", "file", f.path, "expires", t.expires.UTC().Format(time.RFC3339))
	}
	return t, nil
}

// lookUp returns t with the end that it has by now. A policy may forbid the question: without an answer the end stays as it was, or
// unknown.
func (f *tokenFile) lookUp(ctx context.Context, s *session, t *token, now time.Time) *token {
	bounded, question := s.vault.gate.bound(ctx, lookupTimeout)
	defer question.cancel()
	answer, err := withToken(s.logins, t.text).Auth().Token().LookupSelfWithContext(bounded)
	f.look = now.Add(f.warn / tokenLooks)
	if err != nil || answer == nil {
		return t
	}
	text, _ := answer.Data["expire_time"].(string)
	expires, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t // it never ends
	}
	span := seconds(answer.Data["creation_ttl"])
	if period := seconds(answer.Data["period"]); period > 0 {
		span = period
	}
	f.warn = min(span/4, tokenEndCap)
	f.look = now.Add(f.warn / tokenLooks)
	if expires.Equal(t.expires) {
		return t
	}
	renewed := *t
	renewed.expires, f.warned = expires, time.Time{}
	return &renewed
}

func seconds(number any) time.Duration {
	n, _ := number.(json.Number)
	count, _ := n.Int64()
	return time.Duration(count) * time.Second
}
