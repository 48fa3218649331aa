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

	"campaign-credsync/internal/jitter"
	"campaign-credsync/sources/vault/connection"
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
	stable       time.Duration // a connection that lived this long was none that failed
	again        time.Duration // before a server that does not serve events is asked again, jittered
	ping, pong   time.Duration // between two signs of life, and how long the answer may take
	dial         time.Duration // bounds the handshake
}

var usualTimes = times{
	first: jitter.First, limit: jitter.Last, stable: time.Minute, again: time.Hour,
	ping: 20 * time.Second, pong: 10 * time.Second, dial: 15 * time.Second,
}

const (
	// maxTries is how often in a row a subscription may fail while polls succeed, before it is left alone for an hour.
	maxTries = 8
	// pace is the least time between two polls that events of one secret bring forward: a script that writes it again and
	// again is no reason to ask each time.
	pace = time.Second
	// spread is the most that a poll comes later than its event, as many daemons hear of it at the same time.
	spread = 20 * time.Millisecond
)

// Subscribe calls the funcs of config until ctx is done and everything it started has ended. It has no login of its own: it
// waits for a poll that succeeded, and takes its token. Where Vault offers no events, or the policy does not allow them,
// that is logged once, and asked again an hour later or after [Health.AskAgain].
func Subscribe(ctx context.Context, config Config) {
	if len(config.Changed) == 0 {
		return
	}
	if config.times == nil {
		config.times = &usualTimes
	}
	s := &subscriber{Config: config, client: config.Connection.WebSocketClient()}
	for path, changed := range config.Changed {
		s.secrets = append(s.secrets, &secret{path: path, changed: changed})
	}
	slices.SortFunc(s.secrets, func(a, b *secret) int { return strings.Compare(a.path, b.path) })
	s.run(ctx)
}

// secret is one that events are wanted for.
type secret struct {
	path    string // as events call it: with the mount and "data/"
	changed func()
	waiting atomic.Bool // changed is about to be called
	polled  time.Time   // when it was called for the last event; belongs to who has set waiting
}

// subscriber belongs to the goroutine of Subscribe.
type subscriber struct {
	Config
	client   *http.Client
	secrets  []*secret
	failures int // in a row
	logged   string
}

// The ways in which a subscription ends, other than by a failure.
var (
	errRenewed = errors.New("polls have another token")
	errRefused = errors.New("events are not offered, or not allowed")
)

// run subscribes until ctx is done.
func (s *subscriber) run(ctx context.Context) {
	for ctx.Err() == nil {
		// A token for a few uses would end with a poll, and the subscription with it.
		polls, err := s.Health.await(ctx, func(p pollHealth) bool { return p.token != nil && !p.token.FewUses() })
		if err != nil {
			return
		}
		began := time.Now()
		ended := s.stream(ctx, polls.token)
		if time.Since(began) >= s.times.stable {
			s.failures = 0
		}
		if errors.Is(ended, errRefused) { // it may be the token that has ended: a poll finds out, and has another one then
			if s.awaitPoll(ctx); s.Health.get().token != polls.token {
				continue
			}
		}
		if ctx.Err() == nil && !errors.Is(ended, errRenewed) {
			s.wait(ctx, polls.asked, ended)
		}
	}
}

// wait waits until it is time for another connection. asked is what was known of the operator when the last one began.
func (s *subscriber) wait(ctx context.Context, asked int, ended error) {
	s.failures++
	switch {
	case errors.Is(ended, errRefused):
		s.log(slog.LevelInfo, "vault offers no events, using polls only", "reason", ended)
	case s.failures > maxTries:
		s.log(slog.LevelWarn, "vault events keep failing, using polls only", "reason", ended)
	default:
		s.Logger.Debug("subscription to vault events failed, trying again", "attempt", s.failures, "reason", ended)
		// Many daemons lose their connection at the same time, and must not all come back at once.
		first := max(s.Poll, s.times.first)
		sleep(ctx, jitter.Backoff(s.failures, first, s.times.limit))
		s.awaitPoll(ctx)
		return
	}
	s.failures = 0
	limited, cancel := context.WithTimeout(ctx, s.times.again-rand.N(s.times.again/5))
	defer cancel()
	if _, err := s.Health.await(limited, func(p pollHealth) bool { return p.asked > asked }); err == nil {
		s.logged = "" // whoever asks gets an answer
		s.awaitPoll(ctx)
	}
}

// awaitPoll waits for a poll that succeeds, which it brings forward, as the next one may be an hour away. A Vault that does not
// answer polls is left alone, and a token that has ended is found out.
func (s *subscriber) awaitPoll(ctx context.Context) {
	before := s.Health.get().good
	s.pollAll()
	s.Health.await(ctx, func(p pollHealth) bool { return p.good > before })
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *subscriber) pollAll() {
	for _, p := range s.secrets {
		p.changed()
	}
}

// log logs what has become of the subscription, once.
func (s *subscriber) log(level slog.Level, what string, args ...any) {
	if s.logged != what {
		s.logged = what
		s.Logger.Log(context.Background(), level, what, args...)
	}
}
