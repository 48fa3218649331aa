package sync_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	stdsync "sync"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// adobe is what is asked: it knows which client ids it refuses, or gives no answer.
type adobe struct {
	mu      stdsync.Mutex
	refuses map[string]bool
	err     error
	takes   time.Duration
	asked   []string // client ids, and when
	at      []time.Time
}

func (a *adobe) Probe(ctx context.Context, c credential.Credential) error {
	a.mu.Lock()
	a.asked, a.at = append(a.asked, c.ClientID), append(a.at, time.Now())
	err, refuses, takes := a.err, a.refuses[c.ClientID], a.takes
	a.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case err != nil:
		return err
	case refuses:
		return &credential.Refusal{Code: credential.ReasonIMSRefused, Reason: "Adobe refuses the credential"}
	}
	return nil
}

func (a *adobe) change(f func(a *adobe)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

// take returns who was asked about since it was called last, and when.
func (a *adobe) take() (asked []string, at []time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked, at = a.asked, a.at
	a.asked, a.at = nil, nil
	return asked, at
}

type laterError struct{ at time.Time }

func (laterError) Error() string        { return "too many requests" }
func (e laterError) RetryAt() time.Time { return e.at }

// probing is a world in which version 1 was accepted and is in sync.
func probing(t *testing.T, change func(*world), test func(t *testing.T, w *world, a *adobe)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, a := newWorld(t, "prod"), &adobe{refuses: map[string]bool{}, takes: 100 * time.Millisecond}
		w.config.Prober, w.config.Patience = a, time.Minute
		if change != nil {
			change(w)
		}
		w.source.rotate("one")
		w.start()
		w.wantState("prod", credsync.StateInSync)
		if in := w.only(); !in.Proven {
			t.Errorf("not proven: %+v", in)
		}
		w.wantAsked(a, "one")
		w.wantActivated("reload")
		test(t, w, a)
		w.stop()
	})
}

func (w *world) wantAsked(a *adobe, want ...string) {
	w.t.Helper()
	w.settle()
	if got, _ := a.take(); !slices.Equal(got, want) {
		w.t.Fatalf("Adobe was asked about %q, want %q\n%s", got, want, w.log)
	}
}

// rotates has a new version come, and gives it time.
func (w *world) rotates(clientID string, wait time.Duration) {
	w.t.Helper()
	w.source.rotate(clientID)
	w.daemon.Announced(0)
	time.Sleep(wait)
	w.settle()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) check() {
	w.t.Helper()
	w.must(w.daemon.Check(context.Background()))
}

func every(t *testing.T, interval string) cron.Schedule {
	t.Helper()
	schedule, err := cron.ParseStandard("@every " + interval)
	if err != nil {
		t.Fatal(err)
	}
	return schedule
}
