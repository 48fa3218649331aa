// Package push has Vault tell of new versions, over one WebSocket for all secrets, so that the next poll of a secret comes
// forward. An event is a hint and nothing more: those of the time without a connection are lost, so polls go on, and every
// secret is polled after each connection that is made.
//
// Vault Enterprise has events from 1.16 on, older ones behind the experiment events.alpha1; others have none.
package push

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
)

// Config says what to subscribe to.
type Config struct {
	Connection *connection.Connection
	Namespace  string
	Health     *Health       // what polls find out
	Poll       time.Duration // the interval of the polls
	// Changed is called for a secret, by its path as events have it ("secret/data/prod"), when that may have a new version.
	// The funcs must not block, and may be called concurrently.
	Changed map[string]func()
	Logger  *slog.Logger

	times *times // nil: the usual ones
}

// times are the waits of a subscription.
type times struct {
	first, limit time.Duration // bounds of the jittered wait before a connection that was lost is made again
	settled      time.Duration // a connection that lived this long was none that failed
	again        time.Duration // before a server that does not serve events is asked again, jittered
	ping, pong   time.Duration // between two signs of life, and how long the answer may take
	dial         time.Duration // bounds the handshake
}

var usualTimes = times{
	first: time.Second, limit: time.Minute, settled: time.Minute, again: time.Hour,
	ping: 20 * time.Second, pong: 10 * time.Second, dial: 15 * time.Second,
}

const (
	// maxTries is how often in a row a subscription may fail while polls succeed, before it is left alone for an hour.
	maxTries = 8
	// burst and pace bound the polls that events of one secret bring forward: a script that writes it again and again is no
	// reason to ask each time.
	burst = 3
	pace  = time.Second
	// spread is the most that a poll comes later than its event, as many daemons hear of it at the same time.
	spread = 20 * time.Millisecond
)

// Subscribe calls the funcs of config until ctx is done and everything it started has ended. It has no login of its own: it
// waits for a poll that succeeded, and takes its token. Where Vault offers no events, or the policy does not allow them,
// that is told once, and asked again an hour later or after [Health.AskAgain].
func Subscribe(ctx context.Context, config Config) {
	if len(config.Changed) == 0 {
		return
	}
	if config.times == nil {
		config.times = &usualTimes
	}
	s := &subscriber{Config: config, base: min(max(config.Poll, config.times.first), config.times.limit)}
	for path, changed := range config.Changed {
		s.secrets = append(s.secrets, &secret{path: path, changed: changed, pace: rate.NewLimiter(rate.Every(pace), burst)})
	}
	slices.SortFunc(s.secrets, func(a, b *secret) int { return strings.Compare(a.path, b.path) })
	s.client = config.Connection.WebSocketClient()
	s.run(ctx)
}

// secret is one that events are wanted for.
type secret struct {
	path    string // as events call it: with the mount and "data/"
	changed func()
	pace    *rate.Limiter
	due     atomic.Bool // changed is about to be called
}

// subscriber belongs to the goroutine of Subscribe.
type subscriber struct {
	Config
	base     time.Duration // spreads connections that were lost at the same time
	client   *http.Client
	secrets  []*secret
	failures int // in a row
	told     string
}

// The ways in which a subscription ends, other than by a failure.
var (
	errRenewed    = errors.New("polls have another token")
	errNotOffered = errors.New("events are not offered")
	errNotAllowed = errors.New("events are not allowed, or not offered")
	errFewUses    = errors.New("the token may be used a few times only") // the login said so
)

const (
	toldConnected  = "subscribed to vault events"
	toldNotOffered = "vault offers no events, using polls only"
	toldFailing    = "vault events keep failing, using polls only"
)

// run subscribes until ctx is done.
func (s *subscriber) run(ctx context.Context) {
	seen, err := s.Health.await(ctx, func(p pollHealth) bool { return p.token != nil })
	for err == nil {
		began := time.Now()
		ended := s.stream(ctx, seen.token)
		if time.Since(began) >= s.times.settled {
			s.failures = 0
		}
		seen, err = s.next(ctx, seen, ended)
	}
}

// next waits until it is time for another connection, and returns what is known by then.
func (s *subscriber) next(ctx context.Context, seen pollHealth, ended error) (pollHealth, error) {
	throttled, isThrottled := errors.AsType[*connection.ThrottledError](ended)
	switch {
	case ctx.Err() != nil:
		return seen, ctx.Err()
	case isThrottled:
		return s.Health.get(), sleep(ctx, time.Until(throttled.RetryAt()))
	case errors.Is(ended, errRenewed):
		return s.Health.get(), nil
	case errors.Is(ended, errFewUses):
		return s.Health.await(ctx, func(p pollHealth) bool { return !p.token.FewUses() })
	case errors.Is(ended, errNotAllowed):
		// It may be the token that has ended. A poll finds out, and has another one then.
		if now, err := s.pollFirst(ctx); err != nil || now.token != seen.token {
			return now, err
		}
		s.tell(slog.LevelInfo, toldNotOffered, "reason", "permission denied, as by every Vault but Enterprise; "+s.remedy())
		return s.muchLater(ctx, seen)
	case errors.Is(ended, errNotOffered):
		s.tell(slog.LevelInfo, toldNotOffered, "reason", ended)
		return s.muchLater(ctx, seen)
	}
	s.failures++
	s.Logger.Debug("subscription to vault events failed, trying again", "attempt", s.failures, "reason", ended.Error())
	if s.failures > maxTries {
		s.tell(slog.LevelWarn, toldFailing, "reason", ended)
		return s.muchLater(ctx, seen)
	}
	return s.soon(ctx)
}

// soon waits a jittered while, and, unless polls go on well, until one has succeeded: many daemons lose their connection at
// the same time, and must not all come back to a Vault that has just come back itself.
func (s *subscriber) soon(ctx context.Context) (pollHealth, error) {
	if err := sleep(ctx, rand.N(min(s.base<<(s.failures-1), s.times.limit))); err != nil {
		return pollHealth{}, err
	}
	if now := s.Health.get(); s.failures == 1 && !now.failing {
		return now, nil
	}
	now, err := s.pollFirst(ctx)
	if err != nil {
		return now, err
	}
	return now, sleep(ctx, rand.N(s.base))
}

// pollFirst waits for a poll that succeeds, which it has come now: the next one may be an hour away.
func (s *subscriber) pollFirst(ctx context.Context) (pollHealth, error) {
	before := s.Health.get().good
	s.announceAll()
	return s.Health.await(ctx, func(p pollHealth) bool { return p.good > before })
}

// muchLater waits an hour, or for the operator's word and the poll that follows it. asked is what was known when Vault was
// asked last.
func (s *subscriber) muchLater(ctx context.Context, asked pollHealth) (pollHealth, error) {
	s.failures = 0
	limited, cancel := context.WithTimeout(ctx, s.times.again-rand.N(s.times.again/5))
	defer cancel()
	now, err := s.Health.await(limited, func(p pollHealth) bool { return p.asked > asked.asked })
	if err != nil {
		return now, ctx.Err() // nil after the hour
	}
	s.told = "" // who asks is told
	return s.Health.await(ctx, func(p pollHealth) bool { return p.good > now.good })
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *subscriber) announceAll() {
	for _, p := range s.secrets {
		p.changed()
	}
}

// tell logs what has become of the subscription, once.
func (s *subscriber) tell(level slog.Level, what string, args ...any) {
	if s.told == what {
		return
	}
	s.told = what
	s.Logger.Log(context.Background(), level, what, args...)
}

// connected has all secrets polled, as nobody tells of what was written before.
func (s *subscriber) connected(ctx context.Context, t *login.Token) {
	s.announceAll()
	if s.told == toldConnected {
		s.Logger.Debug("subscribed to vault events again")
		return
	}
	s.tell(slog.LevelInfo, toldConnected, "secrets", len(s.secrets))
	s.checkPolicy(ctx, t)
}
