package sync_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// Errors of a source that say more than their text.
type laterTrouble struct{ at time.Time }

func (laterTrouble) Error() string        { return "login failed; next login later" }
func (l laterTrouble) RetryAt() time.Time { return l.at }

// A login that waits is asked for when its wait is over, however many times it was asked for before: two waits in a row would
// pass the cap of a minute.
func TestWaitOfALoginIsNotWaitedForTwice(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		for range 20 { // each wait of the loop's own is random
			back := time.Now().Add(59 * time.Second)
			w.source.change(func(s *source) { s.err = laterTrouble{back} })
			time.Sleep(40 * time.Second)
			w.wantState("prod", credsync.StateDegraded)
			time.Sleep(time.Until(back) - time.Millisecond)
			w.source.change(func(s *source) { s.err = nil })
			time.Sleep(time.Second)
			w.wantState("prod", credsync.StateInSync)
		}
	})
}

// What waiting does not mend is told at the level that is for people.
func TestTroubleForPeopleIsAnError(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		before := w.told("level=WARN")
		w.source.change(func(s *source) { s.err = credential.NeedsOperator(errors.New("the certificate has expired; renew it")) })
		time.Sleep(10 * time.Minute)
		w.wantState("prod", credsync.StateDegraded)
		if errors, warnings := w.told("level=ERROR"), w.told("level=WARN"); errors != 1 || warnings != before {
			t.Errorf("%d errors and %d warnings, want one error\n%s", errors, warnings-before, w.log)
		}
	})
}

// What may end by itself is a warning at first, and an alarm when it has lasted, once each; then its end is told. Nothing else is told
// meanwhile.
func TestTroubleThatLastsIsAnError(t *testing.T) {
	trouble := errors.New("it does not work")
	for _, c := range []struct {
		what, over string
		begin, end func(w *world)
	}{
		{"source unreachable", "source reachable again",
			func(w *world) { w.source.change(func(s *source) { s.err = trouble }) },
			func(w *world) { w.source.change(func(s *source) { s.err = nil }) }},
		{"credential not applied", "credential applied",
			func(w *world) { w.sinks["prod"].change(func(s *sink) { s.applyErr = trouble }); w.source.rotate("two") },
			func(w *world) { w.sinks["prod"].change(func(s *sink) { s.applyErr = nil }) }},
		{"credential not activated", "msg=activated",
			func(w *world) { w.active.fail(trouble); w.source.rotate("two") },
			func(w *world) { w.active.fail(nil) }},
		{"instance file unusable", "instance file usable again",
			func(w *world) { w.sinks["prod"].change(func(s *sink) { s.lookErr = credential.ErrDamaged }) },
			func(w *world) { w.sinks["prod"].change(func(s *sink) { s.lookErr = nil }) }},
		{"drift not reverted", "drift reverted",
			func(w *world) {
				w.sinks["prod"].change(func(s *sink) { s.restoreErr = trouble })
				w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			},
			func(w *world) { w.sinks["prod"].change(func(s *sink) { s.restoreErr = nil }) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			one(t, nil, func(t *testing.T, w *world) {
				told := func(warnings, errors, ends int) {
					t.Helper()
					w.settle()
					n := []int{w.told(`level=WARN msg="` + c.what), w.told(`level=ERROR msg="` + c.what), w.told("level=ERROR"), w.told(c.over)}
					if want := []int{warnings, errors, errors, ends}; !slices.Equal(n, want) {
						t.Errorf("warnings, errors of it, errors, ends: %d, want %d\n%s", n, want, w.log)
					}
				}
				ends := w.told(c.over)
				c.begin(w)
				time.Sleep(9*time.Minute + 30*time.Second)
				told(1, 0, ends)
				time.Sleep(2 * time.Minute)
				told(1, 1, ends)
				time.Sleep(2 * time.Hour)
				told(1, 1, ends)
				c.end(w)
				time.Sleep(11 * time.Minute)
				told(1, 1, ends+1)
				w.wantState("prod", credsync.StateInSync)
			})
		})
	}
}

// inTurn is a source that shares a slow connection with others.
type inTurn struct {
	*source
	connection chan struct{} // holds one entry while it is in use
}

func (s inTurn) Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	select {
	case s.connection <- struct{}{}:
		defer func() { <-s.connection }()
		time.Sleep(3 * time.Second)
		return s.source.Poll(ctx, need)
	case <-ctx.Done():
		return credential.Reading{}, ctx.Err()
	}
}

// Many sources that are read one after the other are no source that hangs.
func TestManySourcesAreReadInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for n := range 40 {
			names = append(names, fmt.Sprintf("i%02d", n))
		}
		w := newWorld(t, names...)
		connection := make(chan struct{}, 1)
		for i := range w.config.Instances {
			w.config.Instances[i].Source = inTurn{&source{}, connection}
			w.config.Instances[i].Source.(inTurn).rotate("one")
		}
		w.start()
		time.Sleep(10 * time.Minute)
		for _, name := range names {
			w.wantState(name, credsync.StateInSync)
		}
		if n := w.told("level=ERROR"); n != 0 {
			t.Errorf("%d lines of trouble\n%s", n, w.log)
		}
		w.stop()
		time.Sleep(3 * time.Second) // for the read that was left behind
	})
}

// A source that says when it has an answer is asked then, up to some minutes from now.
func TestSourceSaysWhenItHasAnAnswer(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		back := time.Now().Add(5*time.Minute + 55*time.Second)
		w.source.change(func(s *source) { s.err = laterTrouble{back} })
		time.Sleep(40 * time.Second) // past a poll
		polls, _ := w.source.counts()
		time.Sleep(time.Until(back) - time.Millisecond)
		if now, _ := w.source.counts(); now != polls {
			t.Errorf("asked %d times before", now-polls)
		}
		w.source.change(func(s *source) { s.err = nil })
		time.Sleep(time.Second)
		w.wantState("prod", credsync.StateInSync)
	})
}
