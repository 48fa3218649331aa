package sources

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// eventTimes are the waits of a subscription; tests have shorter ones.
type eventTimes struct {
	first, limit time.Duration // bounds of the jittered wait before a connection that was lost is made again
	settled      time.Duration // a connection that lived this long was none that failed
	again        time.Duration // before a server that does not serve events is asked again, jittered
	ping, pong   time.Duration // between two signs of life, and how long the answer may take
	dial         time.Duration // bounds the handshake
	spread       time.Duration // the most that a poll comes later than its event
}

var defaultEventTimes = eventTimes{
	first: time.Second, limit: time.Minute, settled: time.Minute, again: time.Hour,
	ping: 20 * time.Second, pong: 10 * time.Second, dial: 15 * time.Second, spread: 20 * time.Millisecond,
}

const (
	// eventTries is how often in a row a subscription may fail while polls succeed, before it is left alone for an hour.
	eventTries = 8
	// eventBurst and eventPace bound the polls that events of one secret bring forward: a script that writes it again and
	// again is no reason to ask each time.
	eventBurst = 3
	eventPace  = time.Second
)

// Subscribe has Vault push what is written to secrets, over one WebSocket for all of them, and calls the secret's func
// when it may have a new version, so that the next poll can be brought forward. That is all an event is good for: those
// of the time without a connection are lost, so polls go on, and all funcs are called after each connection that is made.
// The funcs must not block, and are called by one goroutine at a time. Each KV must name a secret of its own. poll is the
// interval of the polls.
//
// It returns when ctx is done and everything it started has ended; it runs once at a time. It has no login of its own: it
// waits for a poll that succeeded, and takes its token. Where Vault offers no events, or the policy does not allow them,
// that is told once, and asked again an hour later or after Retry.
//
// Vault Enterprise has them from 1.16 on, older ones behind the experiment events.alpha1; OpenBao has none.
func (v *Vault) Subscribe(ctx context.Context, poll time.Duration, secrets map[*KV]func()) {
	s := &subscriber{vault: v, times: v.eventTimes, filtered: true}
	s.base = min(max(poll, s.times.first), s.times.limit)
	for kv, changed := range secrets {
		if _, ok := kv.engine.(*kv2); !ok {
			continue // its events have other names
		}
		s.secrets = append(s.secrets, &pushed{
			path: kv.at("data"), changed: changed, pace: rate.NewLimiter(rate.Every(eventPace), eventBurst),
		})
	}
	if len(s.secrets) == 0 {
		return
	}
	slices.SortFunc(s.secrets, func(a, b *pushed) int { return strings.Compare(a.path, b.path) })
	transport := v.transport.Clone()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true) // a WebSocket takes the connection over, so none is left to keep
	transport.DisableKeepAlives, transport.MaxConnsPerHost = true, 0
	s.client = &http.Client{Transport: &careful{next: transport, gate: v.gate}, CheckRedirect: lastResponse}
	defer transport.CloseIdleConnections()
	s.run(ctx)
}

// pushed is a secret that events are wanted for.
type pushed struct {
	path    string // as events call it: with the mount and "data/"
	changed func()
	pace    *rate.Limiter
	due     time.Time // when changed is to be called; zero: not
}

func (p *pushed) announce() {
	p.due = time.Time{}
	p.changed()
}

// subscriber belongs to the goroutine of Subscribe.
type subscriber struct {
	vault    *Vault
	times    eventTimes
	base     time.Duration // spreads connections that were lost at the same time
	client   *http.Client
	secrets  []*pushed
	filtered bool // Vault is asked for our paths only
	failures int  // in a row
	told     string
}

// The ways in which a subscription ends, other than by a failure.
var (
	errRenewed    = errors.New("the session has another token")
	errNotOffered = errors.New("events are not offered")
	errNotAllowed = errors.New("events are not allowed")
	errFewUses    = errors.New("the token may be used a few times only") // the login said so
)

// run subscribes until ctx is done.
func (s *subscriber) run(ctx context.Context) {
	seen, err := s.vault.proof.await(ctx, func(e evidence) bool { return e.token != nil })
	for err == nil {
		if err = s.leftAlone(ctx); err != nil {
			return
		}
		began := time.Now()
		stream, ended := s.dial(ctx, seen.token)
		if ended == nil {
			s.connected(ctx, seen.token)
			ended = s.follow(ctx, stream, seen.token)
		}
		if time.Since(began) >= s.times.settled {
			s.failures = 0
		}
		seen, err = s.next(ctx, seen, ended)
	}
}

// leftAlone waits while Vault wants to be left alone.
func (s *subscriber) leftAlone(ctx context.Context) error {
	for {
		closed, ok := errors.AsType[*leftAlone](s.vault.gate.closed(s.vault))
		if !ok {
			return nil
		}
		if err := sleep(ctx, time.Until(closed.until)); err != nil {
			return err
		}
	}
}

// next waits until it is time for another connection, and returns what is known by then.
func (s *subscriber) next(ctx context.Context, seen evidence, ended error) (evidence, error) {
	now := s.vault.proof.get()
	switch {
	case ctx.Err() != nil:
		return now, ctx.Err()
	case errors.Is(ended, errRenewed):
		return now, nil
	case errors.Is(ended, errFewUses):
		return s.vault.proof.await(ctx, func(e evidence) bool { return e.token.uses == nil })
	case errors.Is(ended, errNotAllowed):
		version, offers := s.offersEvents(ctx, seen.token)
		if ctx.Err() != nil {
			return now, ctx.Err() // cut short by the stop, tells nothing
		}
		if !offers {
			s.tell(ctx, slog.LevelInfo, toldNotOffered, "reason", "version "+version+" has none")
			return s.muchLater(ctx, seen)
		}
		// It may be the token that has ended. A poll finds out, and has another one then.
		s.announceAll()
		proved, err := s.vault.proof.await(ctx, func(e evidence) bool { return e.good > now.good })
		if err != nil || proved.token != seen.token {
			return proved, err
		}
		s.tell(ctx, slog.LevelWarn, toldNotAllowed, "reason", "permission denied; "+s.remedy())
		return s.muchLater(ctx, seen)
	case errors.Is(ended, errNotOffered):
		s.tell(ctx, slog.LevelInfo, toldNotOffered, "reason", ended)
		return s.muchLater(ctx, seen)
	}
	s.failures++
	s.vault.logger.Debug("no events from vault for now", "attempt", s.failures, "reason", ended.Error())
	if s.failures > eventTries {
		s.tell(ctx, slog.LevelWarn, "events of vault cannot be had, new versions are found by polls alone", "reason", ended)
		return s.muchLater(ctx, seen)
	}
	return s.soon(ctx, now)
}

// soon waits a jittered while, and, where polls failed meanwhile, until one has succeeded: many daemons lose their
// connection at the same time, and must not all come back to a Vault that has just come back itself.
func (s *subscriber) soon(ctx context.Context, lost evidence) (evidence, error) {
	limit := s.times.limit
	if s.failures < 10 {
		limit = min(s.base<<(s.failures-1), limit)
	}
	if err := sleep(ctx, rand.N(limit)); err != nil {
		return lost, err
	}
	now := s.vault.proof.get()
	if s.failures > 1 && now.silent(lost) {
		s.announceAll() // the poll that tells whether Vault is there may be an hour away
	} else if !now.failing(lost) {
		return now, nil
	}
	now, err := s.vault.proof.await(ctx, func(e evidence) bool { return e.good > now.good })
	if err != nil {
		return now, err
	}
	return now, sleep(ctx, rand.N(s.base))
}

// muchLater waits an hour, or for the operator's word and the poll that follows it. asked is what was known when Vault was
// asked last.
func (s *subscriber) muchLater(ctx context.Context, asked evidence) (evidence, error) {
	s.failures = 0
	limited, cancel := context.WithTimeout(ctx, time.Duration(float64(s.times.again)*jitter()))
	defer cancel()
	now, err := s.vault.proof.await(limited, func(e evidence) bool { return e.asked > asked.asked })
	if err != nil {
		return now, ctx.Err() // nil after the hour
	}
	s.told = "" // who asks is told
	return s.vault.proof.await(ctx, func(e evidence) bool { return e.good > now.good })
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
		p.announce()
	}
}
