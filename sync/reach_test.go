package sync_test

import (
	"testing"
	"time"

	credsync "campaign-credsync/sync"
)

// Errors of a source that say more than their text.
type (
	laterTrouble  struct{ at time.Time }
	peopleTrouble struct{}
)

func (laterTrouble) Error() string        { return "login failed; next login later" }
func (l laterTrouble) RetryAt() time.Time { return l.at }

func (peopleTrouble) Error() string { return "the certificate has expired; renew it" }
func (peopleTrouble) ForPerson()    {}

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
		w.source.change(func(s *source) { s.err = peopleTrouble{} })
		time.Sleep(10 * time.Minute)
		w.wantState("prod", credsync.StateDegraded)
		if errors, warnings := w.told("level=ERROR"), w.told("level=WARN"); errors != 1 || warnings != before {
			t.Errorf("%d errors and %d warnings, want one error\n%s", errors, warnings-before, w.log)
		}
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
