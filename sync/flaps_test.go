package sync_test

import (
	"errors"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// A node of Vault is behind the others, and polls meet it and them in turn: what is applied stays, status tells what the
// last poll was told, and the log tells it twice and no more, and at last that it is over.
func TestNodesOfVaultDisagree(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		var old, newest credential.Version
		w.source.change(func(s *source) { old = s.version })
		w.source.rotate("two")
		time.Sleep(40 * time.Second)
		w.wantOnDisk("prod", "two")
		w.source.change(func(s *source) { newest = s.version })
		reads := 0
		w.source.change(func(s *source) { reads = s.reads })
		show := func(v credential.Version) {
			w.source.change(func(s *source) { s.version = v })
			time.Sleep(40 * time.Second)
		}
		for range 30 {
			show(old)
			w.wantState("prod", credsync.StateBlocked)
			show(newest)
			w.wantState("prod", credsync.StateInSync)
		}
		w.wantOnDisk("prod", "two")
		w.source.change(func(s *source) { reads = s.reads - reads })
		if applied := w.sinks["prod"].applied(); applied != 2 || reads != 0 {
			t.Errorf("%d applies, want 2; %d reads of the secret, want none", applied, reads)
		}
		if n := w.told("level=ERROR"); n != 2 {
			t.Errorf("%d alarms, want 2\n%s", n, w.log)
		}
		const over = `level=INFO msg="secret accepted again"`
		if n := w.told(over); n != 1 {
			t.Errorf("told %d times that it is over, want once so far\n%s", n, w.log)
		}
		time.Sleep(12 * time.Minute)
		if n := w.told(over); n != 2 {
			t.Errorf("told %d times that it is over, want twice\n%s", n, w.log)
		}
		// The node is behind again, days later: that is news.
		show(old)
		if n := w.told("level=ERROR"); n != 3 {
			t.Errorf("%d alarms, want 3\n%s", n, w.log)
		}
	})
}

// Nothing answers, in several ways in turn: each is told once.
func TestReasonsInTurnAreToldOnce(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		reasons := []error{errors.New("no active node"), errors.New("no answer in time"), errors.New("refused")}
		for i := range 30 {
			w.source.change(func(s *source) { s.err = reasons[i%3] })
			time.Sleep(time.Minute)
		}
		w.wantState("prod", credsync.StateDegraded)
		if n := w.told(`level=WARN msg="source unreachable`); n != 3 {
			t.Errorf("%d warnings, want 3\n%s", n, w.log)
		}
		w.source.change(func(s *source) { s.err = nil })
		time.Sleep(2 * time.Minute)
		w.source.change(func(s *source) { s.err = reasons[0] })
		time.Sleep(time.Minute)
		if n := w.told(`level=WARN msg="source unreachable`); n != 4 {
			t.Errorf("%d warnings, want 4: it was back in between\n%s", n, w.log)
		}
	})
}
