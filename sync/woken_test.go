package sync_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// Who waits for something is woken when it comes: world.settle finds who is not.

// TestAdoptWakes: the record is saved at once, and what waited for the end of an adopt that failed goes on.
func TestAdoptWakes(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		unheard(w, "authIMSTAClientSecret", "@another")
		began := time.Now()
		w.must(w.daemon.Adopt(context.Background(), nil))
		if took := time.Since(began); took > 0 {
			t.Errorf("it waited for %v", took)
		}
	})
	one(t, nil, func(t *testing.T, w *world) {
		unheard(w, "authIMSTAClientId", "mallory")
		if err := w.daemon.Adopt(context.Background(), nil); err == nil {
			t.Error("a client id that is not the source's was adopted")
		}
		w.wantOnDisk("prod", "one")
	})
}

// TestActivationIsWokenByAnApplyThatFails: the one that it has waited for needs none itself.
func TestActivationIsWokenByAnApplyThatFails(t *testing.T) {
	inWorld(t, []string{"prod", "stage"}, nil, func(t *testing.T, w *world) {
		w.active.take()
		w.sinks["prod"].change(func(s *sink) { s.applyTime, s.applyErr = 20*time.Second, errors.New("nlserver exited with status 1") })
		w.source.rotate("two")
		w.daemon.CheckSoon()
		time.Sleep(10 * time.Second)
		w.wantOnDisk("stage", "two")
		w.wantActivated()
		time.Sleep(10 * time.Second)
		w.wantActivated("reload")
	})
}

// TestCheckEndsWhenActivationHangs: also of an instance whose own step is to come after the one that hangs.
func TestCheckEndsWhenActivationHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod", "stage")
		w.active.steps = []string{"restart pipelined@%"}
		w.source.rotate("one")
		w.start()
		w.stop()
		w.active.take()
		w.config.Activator = slowRestarts{w.active}
		w.config.CommandRuns = func() bool { return false }
		w.config.Poll = time.Hour // no poll wakes anybody
		w.source.rotate("two")
		w.launch()
		time.Sleep(time.Second)
		began := time.Now()
		w.must(w.daemon.Check(context.Background(), "stage"))
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it took %v to tell that a step hangs", took)
		}
		w.wantState("prod", credsync.StateDegraded)
		w.stop()
		time.Sleep(time.Hour) // the step that was left behind
	})
}

// slowRestarts takes an hour for each.
type slowRestarts struct{ *activator }

func (a slowRestarts) Activate(ctx context.Context, step credential.Step, since time.Time) (credential.Proof, error) {
	if step.Kind == credential.StepRestart {
		time.Sleep(time.Hour)
	}
	return a.activator.Activate(ctx, step, since)
}

// unheard is a hand edit that no event tells of.
func unheard(w *world, attribute, value string) {
	w.sinks["prod"].change(func(s *sink) { s.touch = nil })
	w.sinks["prod"].edit(attribute, value)
}
