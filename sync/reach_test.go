package sync_test

import (
	"context"
	"errors"
	"fmt"
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
