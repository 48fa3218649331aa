package sync_test

import (
	"errors"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// A node of Vault is behind the others, and polls meet it and them in turn: what is applied stays, status shows what the
// last poll was told, and the log says it every ten minutes.
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
		alarms, ends := w.told("level=ERROR"), w.told(`level=INFO msg="secret accepted again"`)
		if alarms < 2 || alarms > 5 || ends != alarms {
			t.Errorf("%d alarms and %d ends in 40 minutes\n%s", alarms, ends, w.log)
		}
		// The node is behind again, and stays so: that is told at once, or when it has lasted.
		show(old)
		time.Sleep(10 * time.Minute)
		if n := w.told("level=ERROR"); n != alarms+1 {
			t.Errorf("%d alarms, want %d\n%s", n, alarms+1, w.log)
		}
	})
}

// Nothing answers, in several ways in turn: each is told once.
func TestReasonsInTurnAreToldOnce(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		reasons := []error{errors.New("no active node"), errors.New("no answer in time"), errors.New("refused")}
		for i := range 9 {
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
