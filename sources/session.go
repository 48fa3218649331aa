package sources

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
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
	// backoffFirst and backoffCap bound the full jitter between failed logins.
	backoffFirst = time.Second
	backoffCap   = time.Minute
	// lastWords is how long an answer to a login is waited for by a process that is to end, or to reload: without it nobody
	// would know whether the secret-id was refused.
	lastWords = time.Second
	// lookupTimeout bounds the question for a token's end, which nothing depends on.
	lookupTimeout = 5 * time.Second
)

var errClosed = errors.New("vault: closed")

// token is one token of Vault's and the client that carries it. It does not change once made.
type token struct {
	client  *api.Client
	text    credential.Secret
	born    time.Time
	renew   time.Time // when to log in again; zero: never
	expires time.Time // zero: never or not known
	ours    bool      // logged in for by this process
}

// expired reports whether Vault has ended the token for certain; an unknown end is not one.
func (t *token) expired(now time.Time) bool { return !t.expires.IsZero() && !now.Before(t.expires) }

func (t *token) fresh(now time.Time) bool { return t.renew.IsZero() || now.Before(t.renew) }

// session keeps the one token. There is no goroutine behind it: a poll that finds the token old logs in, while the
// others that need one wait for it.
type session struct {
	vault     *Vault
	logins    *api.Client // in the namespace of the login, without a token
	tokenFile string      // method token_file; else empty
	refused   *refusals

	turn chan struct{} // holds one entry while somebody logs in; owns what follows
	wait backoff       // between failed logins
	last struct {
		success time.Time
		early   int    // tokens in a row that were refused when they were young
		proven  string // the login that was accepted last
		warned  string // the failure that was logged because the old token still served
	}
	closed bool

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
}

func (s *session) soon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry = true
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
	if t := s.get(); s.tokenFile == "" && t != nil && t.fresh(time.Now()) {
		return t, nil
	}
	if err := s.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	if s.tokenFile != "" {
		return s.fromFile(ctx)
	}
	old := s.get()
	if old != nil && old.fresh(time.Now()) {
		return old, nil
	}
	t, err := s.login(ctx, loginFloor)
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

// replace is asked after a 403 that came for old. It returns another token to repeat the read with, or nil when a login
// would mend nothing: old never worked for this path and is young, so it is the policy that forbids.
func (s *session) replace(ctx context.Context, old *token, worked bool) (*token, error) {
	if s.tokenFile != "" {
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

// waiting is the error of a login that is not tried yet.
type waiting struct {
	cause error
	until time.Time
	floor bool // only because the last one was not long ago
}

func (w *waiting) Error() string {
	return fmt.Sprintf("%v; next login not before %s", w.cause, w.until.UTC().Format(time.RFC3339))
}
func (w *waiting) Unwrap() error { return w.cause }

// RetryAt is for whoever asks again: earlier there is no answer.
func (w *waiting) RetryAt() time.Time { return w.until }

func rootText(err error) string {
	if w, ok := errors.AsType[*waiting](err); ok {
		return w.cause.Error()
	}
	return err.Error()
}

// login logs in, or says why it may not yet: floor is the least time since the last one. The caller has the turn.
func (s *session) login(ctx context.Context, floor time.Duration) (*token, error) {
	if err := s.vault.gate.closed(s.vault); err != nil {
		return nil, err
	}
	s.mu.Lock()
	forgive, hurry := s.forgive, s.hurry
	s.forgive, s.hurry = false, false
	s.mu.Unlock()

	defer s.refused.turn(ctx)()
	attempt, err := s.vault.method.prepare()
	if err != nil {
		return nil, forPerson{fmt.Errorf("vault login: %w", err)}
	}
	s.mu.Lock()
	s.hidden = attempt.secret
	s.mu.Unlock()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("vault at %s: waiting for a login: %w", s.vault.address, ctx.Err())
	}
	now := time.Now()
	key := s.refused.digest(attempt.identity...)
	if until, ok := s.refused.enough(key, now); ok {
		return nil, &waiting{cause: forPerson{errors.New(attempt.enough)}, until: until}
	}
	if until, ok := s.refused.refused(key, now); ok && !forgive {
		return nil, &waiting{cause: forPerson{errors.New(attempt.refusal)}, until: until}
	}
	if err := s.wait.over(key, now); err != nil && !hurry {
		return nil, err
	}
	if hurry {
		floor = loginFloor
	}
	if until := s.last.success.Add(floor); now.Before(until) {
		return nil, &waiting{cause: errors.New("vault login: the last one was just now"), until: until, floor: true}
	}
	begun := attempt.refusal != "" && key != s.last.proven
	if begun {
		if err := s.refused.begin(key, now); err != nil {
			return nil, forPerson{fmt.Errorf("%s: not tried, as a refused secret-id could not be remembered, and five refused logins "+
				"lock the role for every host: %w; let this user write to state_dir", attempt.step, err)}
		}
	}
	t, err := s.attempt(ctx, attempt)
	if err != nil {
		return nil, s.failed(ctx, attempt, key, begun, err)
	}
	s.wait = backoff{}
	s.last.success, s.last.proven, s.last.warned = t.born, key, ""
	if err := s.refused.forget(); err != nil {
		s.vault.logger.Warn("a refused secret-id stays noted though another is accepted", "reason", err.Error())
	}
	s.set(t)
	s.vault.logger.Debug("logged in to vault", "mount", attempt.mount, "expires", t.expires)
	return t, nil
}

func (s *session) attempt(ctx context.Context, attempt *attempt) (*token, error) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, cancel) })()
	asked := time.Now()
	secret, err := attempt.method.Login(bounded, s.logins)
	if err != nil {
		if bounded.Err() == nil {
			ctx = context.WithoutCancel(ctx) // it came all the same
		}
		return nil, s.vault.explain(ctx, attempt.step, err, s.hide()...)
	}
	if secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "" {
		return nil, &failure{text: fmt.Sprintf("vault at %s: %s: the answer holds no token; check vault.address and the mount",
			s.vault.address, attempt.step)}
	}
	text := credential.NewSecret(secret.Auth.ClientToken)
	t := &token{client: withToken(s.vault.reads, text), text: text, born: asked, ours: true}
	if ttl := time.Duration(secret.Auth.LeaseDuration) * time.Second; ttl > 0 {
		t.expires = asked.Add(ttl)
		t.renew = asked.Add(time.Duration(float64(ttl) * (2.0 / 3) * jitter()))
	}
	return t, nil
}

// failed remembers a failed login before its error is returned: a refused secret-id for an hour and across restarts,
// because Vault locks the role for every host that uses it after five, and anything else for a short while.
func (s *session) failed(ctx context.Context, attempt *attempt, key string, begun bool, err error) error {
	f, _ := errors.AsType[*failure](err)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		// It was us who gave up: nothing is learnt from it, and it may have been refused.
		if begun {
			if noted := s.refused.cut(key, time.Now()); noted != nil {
				err = fmt.Errorf("%w; not remembered: %w", err, noted)
			}
		}
		return err
	}
	now := time.Now()
	if attempt.refusal != "" && f != nil && f.status == http.StatusBadRequest && f.vault {
		s.wait, s.last.proven = backoff{}, ""
		until, noted := s.refused.add(now, begun, attempt.identity...)
		err = &waiting{cause: forPerson{fmt.Errorf("%s (vault says: %s)", attempt.refusal, f.said)}, until: until}
		if noted != nil {
			err = fmt.Errorf("%w; not remembered across a restart: %w; make state_dir a directory that this user may write to, and do "+
				"not try again before", err, noted)
		}
		return err
	}
	if begun {
		if err := s.refused.unrefused(); err != nil {
			s.vault.logger.Warn("a login that was not refused stays noted as one", "reason", err.Error())
		}
	}
	if remedy := attempt.remedies[statusOf(err)]; remedy != "" {
		err = fmt.Errorf("%w: %s", err, remedy)
	}
	return s.wait.failed(key, now, s.vault.gate.down(now), err)
}

// backoff spreads what failed and is tried again: full jitter, up to a cap.
type backoff struct {
	key      string    // what failed last
	err      error     // how
	failures int       // in a row
	retryAt  time.Time // when it may be tried again
}

// over returns an error as long as what key names has to wait. Another than the one that failed need not.
func (b *backoff) over(key string, now time.Time) error {
	if key == b.key && now.Before(b.retryAt) {
		return &waiting{cause: b.err, until: b.retryAt}
	}
	return nil
}

// failed notes that what key names failed, at a time when nothing had been answered for down. The wait is up to as long as
// that, as it is not this that is in trouble: a token that ends in an outage must not begin with short waits again.
func (b *backoff) failed(key string, now time.Time, down time.Duration, err error) error {
	limit := min(max(backoffFirst<<min(b.failures, 10), down), backoffCap)
	b.key, b.err = key, err
	b.failures++
	if alone, ok := errors.AsType[*leftAlone](err); ok {
		b.retryAt = alone.until // it has a jitter of its own, and its own words
		return err
	}
	b.retryAt = now.Add(rand.N(limit))
	return &waiting{cause: err, until: b.retryAt}
}

// fromFile takes the token as the file has it now. The caller has the turn.
func (s *session) fromFile(ctx context.Context) (*token, error) {
	text, err := readLine(s.tokenFile, "vault.auth.token_file")
	if err != nil {
		return nil, err
	}
	if t := s.get(); t != nil && t.text.Reveal() == text {
		return t, nil
	}
	secret := credential.NewSecret(text)
	t := &token{client: withToken(s.vault.reads, secret), text: secret, born: time.Now()}
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	// Only the status report needs it, and a policy may forbid it: without an answer the end is unknown.
	if answer, err := withToken(s.logins, secret).Auth().Token().LookupSelfWithContext(bounded); err == nil && answer != nil {
		if end, ok := answer.Data["expire_time"].(string); ok {
			t.expires, _ = time.Parse(time.RFC3339, end)
		}
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("vault at %s: look up the token: %w", s.vault.address, ctx.Err())
	}
	if err := s.vault.gate.closed(s.vault); err != nil {
		return nil, err
	}
	s.set(t)
	return t, nil
}

func (s *session) close(ctx context.Context) error {
	if err := s.takeTurn(ctx); err != nil {
		if errors.Is(err, errClosed) {
			return nil
		}
		return err
	}
	defer func() { <-s.turn }()
	s.closed = true
	t := s.get()
	if t == nil || !t.ours || t.expired(time.Now()) {
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

// jitter spreads what many daemons do after the same time: ±10 %.
func jitter() float64 { return 0.9 + 0.2*rand.Float64() }
