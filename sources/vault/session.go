package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/trouble"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
)

const (
	// loginFloor is the least time between two logins, whatever the reason.
	loginFloor = time.Second
	// doubtFloor is the age from which a token that never worked for a path is doubted when that path answers 403.
	// Before it a 403 is taken for the policy's, and a login at every poll would mend nothing.
	doubtFloor = 5 * time.Minute
	// replaceFloor is the least time between two logins after a 403. Something revokes the tokens again and again: each costs
	// Vault a lease, and whoever does it may have a reason.
	replaceFloor = time.Minute
	// closeWait is how long a login under way is waited for before the token in use is revoked all the same: it may hang on a disk.
	closeWait = 500 * time.Millisecond
	// revokeLimit bounds the revocation of a token while polls go on.
	revokeLimit = time.Second
)

var errClosed = errors.New("vault: closed")

// session keeps the one token. There is no goroutine behind it: a poll that finds the token old logs in, while the
// others that need one wait for it.
type session struct {
	connection *connection.Connection
	method     *login.Method
	auth       config.Auth
	logger     *slog.Logger

	turn     chan struct{}   // holds one entry while somebody logs in; owns what follows
	last     time.Time       // login that succeeded
	replaced time.Time       // login that succeeded after a 403
	warning  trouble.Trouble // that the old token still serves
	closed   bool

	current atomic.Pointer[login.Token]
	failure atomic.Pointer[error] // why logins fail, for which a person is needed, while the current token serves; nil: none
	asked   atomic.Bool           // the operator said: try again, also after a 403
}

// fromFile reports whether somebody else looks after the token: it is read anew at every poll.
func (s *session) fromFile() bool { return s.auth.Method == config.MethodTokenFile }

// retry forgets every wait, for an operator. With refused also what Vault refused is tried again.
func (s *session) retry(refused bool) {
	s.asked.Store(true)
	s.method.Retry(refused)
}

// token returns a token to work with, after a login where one is due.
func (s *session) token(ctx context.Context) (*login.Token, error) {
	if err := s.connection.Throttled(); err != nil {
		return nil, err
	}
	if t := s.current.Load(); t != nil && t.Fresh() && !s.method.Due() {
		return t, nil // a login that hangs for another path holds up nobody whose token is good
	}
	if err := s.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	old := s.current.Load()
	fresh := old != nil && old.Fresh()
	if fresh && !s.method.Renew(ctx, old) {
		if s.warning.HasBegun() && s.method.HoldsUsed() {
			s.logger.Info("the secret-id of the current token is in its file again")
			s.noFailure()
		}
		return old, nil
	}
	t, err := s.login(ctx)
	if err == nil {
		if fresh { // it is given up long before its end; a poll that still uses it takes t after the 403
			s.revokeReplaced(ctx, old)
		}
		return t, nil
	}
	_, throttled := errors.AsType[*connection.ThrottledError](err)
	if throttled || s.fromFile() || old == nil || old.Expired() || ctx.Err() != nil {
		return nil, err
	}
	s.warning.Tell(s.logger, time.Now(), err, "login failed, using the current token until it ends", "", "expires", old.Expires)
	if s.warning.NeedsPerson() {
		s.failure.Store(&err)
	}
	return old, nil
}

// login logs in, at most once in loginFloor. The caller has the turn.
func (s *session) login(ctx context.Context) (*login.Token, error) {
	if !s.fromFile() {
		select {
		case <-time.After(time.Until(s.last.Add(loginFloor))):
		case <-ctx.Done():
			return nil, s.waiting(ctx)
		}
	}
	t, err := s.method.Login(ctx)
	if err != nil {
		return nil, err
	}
	if s.warning.HasBegun() {
		s.logger.Info("login succeeded again")
	}
	s.last = t.Born
	s.noFailure()
	s.current.Store(t)
	return t, nil
}

func (s *session) noFailure() {
	s.warning = trouble.Trouble{}
	s.failure.Store(nil)
}

func (s *session) waiting(ctx context.Context) error {
	return fmt.Errorf("vault at %s: waiting for a login: %w", s.connection.Address(), ctx.Err())
}

func (s *session) takeTurn(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return s.waiting(ctx)
	}
	if s.closed {
		<-s.turn
		return errClosed
	}
	return nil
}

// used returns t for one request, or another token where t was used as often as it may be.
func (s *session) used(ctx context.Context, t *login.Token) (*login.Token, error) {
	for !t.Use() {
		var err error
		if t, err = s.token(ctx); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// replace is asked after a 403 that came for old. It returns another token to repeat the read with, or nil when a login
// would mend nothing: old is young, never worked for this path and was not called invalid, so it is the policy that forbids.
func (s *session) replace(ctx context.Context, old *login.Token, ended bool) (*login.Token, error) {
	if s.fromFile() {
		return nil, nil
	}
	if err := s.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	if t := s.current.Load(); t != nil && t != old {
		return t, nil
	}
	if !s.asked.Swap(false) {
		if !ended && time.Since(old.Born) < doubtFloor {
			return nil, nil
		}
		if until := s.replaced.Add(replaceFloor); time.Now().Before(until) {
			return nil, &login.BackoffError{Cause: errors.New("vault login: the last one was just now"), Until: until}
		}
	}
	t, err := s.login(ctx)
	if err == nil {
		s.replaced = t.Born
	}
	return t, err
}

// close ends the session, and revokes the token.
func (s *session) close(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	switch err := s.takeTurn(waiting); {
	case err == nil:
		defer func() { <-s.turn }()
		s.closed = true
	case errors.Is(err, errClosed):
		return nil
	case ctx.Err() != nil:
		return err
	}
	if t := s.current.Swap(nil); t != nil {
		return s.revoke(ctx, t)
	}
	return nil
}

// revokeReplaced is revoke for a poll, which may be called off meanwhile.
func (s *session) revokeReplaced(ctx context.Context, t *login.Token) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeLimit)
	defer cancel()
	if err := s.revoke(bounded, t); err != nil {
		s.logger.Warn("token not revoked, it ends by itself", "reason", err)
	}
}

// revoke ends a token, if it is ours.
func (s *session) revoke(ctx context.Context, t *login.Token) error {
	if !t.Revocable || t.Expired() {
		return nil
	}
	_, err := s.connection.Do(ctx, connection.Request{
		Step: "revoke the token", Path: "auth/token/revoke-self", Body: struct{}{}, Namespace: s.auth.Namespace, Token: t.Text, Urgent: true,
	}, nil)
	if connection.Answer(err).InvalidToken() {
		return nil // it has ended already
	}
	if isForbidden(err) {
		return fmt.Errorf(`%w; give the role Vault's policy "default", or one that allows to update auth/token/revoke-self`, err)
	}
	return err
}
