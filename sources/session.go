package sources

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"campaign-credsync/internal/credential"
)

const (
	// loginFloor is the least time between two logins, whatever the reason.
	loginFloor = time.Second
	// doubtFloor is the age from which a token that never worked for a path is doubted when that path answers 403.
	// Before it a 403 is taken for the policy's, and a login at every poll would mend nothing.
	doubtFloor = 5 * time.Minute
	// lastWords is how long an answer to a login is waited for by a process that is to end, or to reload: without it nobody
	// would know whether the secret-id was refused.
	lastWords = time.Second
	// closeWait is how long a login under way is waited for before the token in use is revoked all the same: it may hang on a disk.
	closeWait = 500 * time.Millisecond
)

var errClosed = errors.New("vault: closed")

// token is one token of Vault's and the client that carries it. It does not change once made.
type token struct {
	client  *api.Client
	text    credential.Secret
	born    time.Time
	renew   time.Time // when to log in again; zero: never
	expires time.Time // zero: never or not known
	role    string    // approle: what Vault calls the role; else empty

	revocable bool          // by this process, which has logged in for it; a batch token is not
	uses      *atomic.Int64 // that are left; nil: any number
}

// expired reports whether Vault has ended the token for certain; an unknown end is not one.
func (t *token) expired(now time.Time) bool {
	return !t.expires.IsZero() && !now.Before(t.expires) || t.spent()
}

func (t *token) fresh(now time.Time) bool {
	return (t.renew.IsZero() || now.Before(t.renew)) && !t.spent()
}

// spent reports whether the token was used as often as it may be. Vault has ended it then.
func (t *token) spent() bool { return t.uses != nil && t.uses.Load() <= 0 }

// use takes one of the uses, if one is left.
func (t *token) use() bool { return t.uses == nil || t.uses.Add(-1) >= 0 }

// session keeps the one token. There is no goroutine behind it: a poll that finds the token old logs in, while the
// others that need one wait for it.
type session struct {
	vault     *Vault
	logins    *api.Client // in the namespace of the login, without a token
	tokenFile *tokenFile  // method token_file; else nil
	refused   *refusals
	wrapping  *wrapping    // nil, but where the secret-id is wrapped
	ends      *secretIDEnd // nil where nobody is to be warned

	turn chan struct{} // holds one entry while somebody logs in; owns what follows
	wait backoff       // between failed logins
	last struct {
		success  time.Time
		early    int    // tokens in a row that were refused when they were young
		warned   string // the failure that was logged because the old token still served
		uses     int64  // for how many its token was
		overtook bool   // the last login did not wait for that of another process to end
	}
	untried   bool // a secret-id was unwrapped, and no login made with it yet
	forgotten bool // see forgetKept
	closed    bool

	mu      sync.Mutex // guards what follows
	current *token
	hidden  credential.Secret // the secret-id that was tried last
	hurry   bool              // the operator said: do not wait
	forgive bool              // the operator said: try again, also what was refused
	doubt   bool              // the operator said: try again, also after a 403
}

func (s *session) get() *token {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *session) set(t *token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = t
}

// hide lists what no error may show.
func (s *session) hide(more ...credential.Secret) []credential.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	more = append(more, s.hidden)
	if s.current != nil {
		more = append(more, s.current.text)
	}
	return more
}

func (s *session) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry, s.forgive, s.doubt = true, true, true
	if s.wrapping != nil {
		s.wrapping.soon(true)
	}
}

func (s *session) soon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry = true
	if s.wrapping != nil {
		s.wrapping.soon(false)
	}
}

func (s *session) takeTurn(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("vault at %s: waiting for a login: %w", s.vault.address, ctx.Err())
	}
	if s.closed {
		<-s.turn
		return errClosed
	}
	return nil
}

// token returns a token to work with, after a login where one is due. There is none while Vault wants to be left alone.
func (s *session) token(ctx context.Context) (*token, error) {
	if err := s.vault.gate.closed(s.vault); err != nil {
		return nil, err
	}
	if s.ends != nil {
		s.ends.remind(time.Now())
	}
	if t := s.get(); s.tokenFile == nil && t != nil && t.fresh(time.Now()) && !s.wrapping.isDue(time.Now()) {
		return t, nil
	}
	if err := s.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	if s.tokenFile != nil {
		return s.tokenFile.read(ctx, s)
	}
	old := s.get()
	if old != nil && old.fresh(time.Now()) {
		if s.untried = s.unwrapped(ctx) || s.untried; !s.untried {
			return old, nil
		}
	}
	t, err := s.login(ctx, loginFloor)
	if w, ok := errors.AsType[*waiting](err); ok && w.floor && old != nil {
		switch {
		case old.spent(): // else polls would fail in turns
			if err := sleep(ctx, time.Until(w.until)); err != nil {
				return nil, fmt.Errorf("vault at %s: waiting for a login: %w", s.vault.address, err)
			}
			t, err = s.login(ctx, loginFloor)
		case s.untried && !old.expired(time.Now()):
			s.wrapping.dueAt(w.until)
			return old, nil
		}
	}
	s.untried = false
	if err == nil {
		s.last.early = 0
		return t, nil
	}
	if _, alone := errors.AsType[*leftAlone](err); alone || old == nil || old.expired(time.Now()) || ctx.Err() != nil {
		return nil, err
	}
	// The old token still serves: worth a warning, and only one for each cause.
	if cause := rootText(err); cause != s.last.warned {
		s.last.warned = cause
		level := slog.LevelWarn
		if _, person := errors.AsType[forPerson](err); person {
			level = slog.LevelError
		}
		s.vault.logger.Log(ctx, level, "login failed, the token in use still serves", "reason", err.Error(), "expires", old.expires)
	}
	return old, nil
}

// used returns t for one request, or another token where t was used as often as it may be.
func (s *session) used(ctx context.Context, t *token) (*token, error) {
	for !t.use() {
		var err error
		if t, err = s.token(ctx); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// unwrapped exchanges a new wrapping token while the token in use is still fresh, and reports whether it did: it may have
// ended long before the next login. The caller has the turn.
func (s *session) unwrapped(ctx context.Context) bool {
	if !s.wrapping.isDue(time.Now()) {
		return false
	}
	end, err := s.processTurn(ctx)
	if err != nil {
		return false
	}
	defer end()
	renewed, err := s.wrapping.renew(ctx)
	s.wrapping.tell(ctx, err)
	return renewed
}

// replace is asked after a 403 that came for old. It returns another token to repeat the read with, or nil when a login
// would mend nothing: old never worked for this path and is young, so it is the policy that forbids.
func (s *session) replace(ctx context.Context, old *token, worked bool) (*token, error) {
	if s.tokenFile != nil {
		return nil, nil // read anew at every poll anyway
	}
	if err := s.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	if t := s.get(); t != nil && t != old {
		return t, nil
	}
	s.mu.Lock()
	doubt := s.doubt
	s.doubt = false
	s.mu.Unlock()
	young := time.Since(old.born) < doubtFloor
	if !worked && !doubt && young {
		return nil, nil
	}
	if !young {
		s.last.early = 0
	}
	// Something revokes them again and again: each costs Vault a lease, and whoever does it may have a reason.
	t, err := s.login(ctx, min(loginFloor<<(2*min(s.last.early, 3)), backoffCap))
	if err == nil && young {
		s.last.early++
	}
	return t, err
}

func (s *session) close(ctx context.Context) error {
	if s.ends != nil {
		s.ends.close()
	}
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
	t := s.get()
	if t == nil || !t.revocable || t.expired(time.Now()) {
		return nil
	}
	hide := s.hide()
	s.set(nil)
	bounded, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// vault/api ignores the argument of RevokeSelf: the client's own token is meant.
	err := withToken(s.logins, t.text).Auth().Token().RevokeSelfWithContext(bounded, "")
	if err != nil {
		err = s.vault.explain(ctx, "revoke the token", err, hide...)
	}
	if f, ok := errors.AsType[*failure](err); ok && f.status == http.StatusForbidden {
		if !f.denied {
			return nil // it has ended already
		}
		return fmt.Errorf(`%w; give the role Vault's policy "default", or one that allows to update auth/token/revoke-self`, err)
	}
	return err
}
