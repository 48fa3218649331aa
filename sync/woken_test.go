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
		w.config.Activator = slow{w.active, credential.StepRestart, time.Hour}
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

// TestActivationDoesNotWaitForAnApplyThatHangs: what the others have applied is activated when it is known to hang, and once more after it.
func TestActivationDoesNotWaitForAnApplyThatHangs(t *testing.T) {
	inWorld(t, []string{"prod", "stage"}, nil, func(t *testing.T, w *world) {
		w.wantActivated("reload")
		w.reload(func(c *credsync.Config) { c.CommandRuns = func() bool { return false } })
		w.sinks["prod"].change(func(s *sink) { s.applyTime = time.Hour })
		w.source.rotate("two")
		w.daemon.CheckSoon()
		time.Sleep(20 * time.Second)
		w.wantOnDisk("stage", "two")
		w.wantActivated()
		time.Sleep(20 * time.Second)
		w.wantState("prod", credsync.StateDegraded)
		w.wantActivated("reload")
		w.wantState("stage", credsync.StateInSync)
		time.Sleep(time.Hour)
		w.wantOnDisk("prod", "two")
		w.wantActivated("reload")
		w.wantState("prod", credsync.StateInSync)
	})
}

// TestActivationDoesNotWaitForALookThatHangs: processes cannot be looked at while the kernel holds one of them.
func TestActivationDoesNotWaitForALookThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.config.Activator, w.config.Poll = slow{w.active, "look", time.Hour}, time.Hour
		w.active.steps = []string{"restart web"}
		w.active.proves("web", credential.Proof{Result: credential.ProofMissing, Text: "it does not run"})
		w.source.rotate("one")
		w.start()
		w.active.take()
		time.Sleep(time.Minute)
		w.wantState("prod", credsync.StateDegraded)
		w.source.rotate("two")
		w.check()
		w.wantOnDisk("prod", "two")
		w.wantActivated("reload", "restart web")
		time.Sleep(time.Hour) // the look ends, and the next one hangs
		w.wantState("prod", credsync.StateDegraded)
		w.stop()
		time.Sleep(time.Hour) // the step that was left behind
	})
}

// TestCheckEndsWithoutAQuestion: Adobe cannot be asked about a private key, which is known when its secret was read again. Who is woken
// first then, the order or the one that does not ask, is not known.
func TestCheckEndsWithoutAQuestion(t *testing.T) {
	probing(t, func(w *world) { w.config.Poll = time.Hour }, func(t *testing.T, w *world, _ *adobe) {
		w.source.rotate("two")
		w.source.change(func(s *source) { s.secret.PrivateKey = credential.NewSecret("-----BEGIN PRIVATE KEY-----") })
		w.check()
		for range 200 {
			began := time.Now()
			w.must(w.daemon.Ask(context.Background(), nil))
			w.check()
			if took := time.Since(began); took > 0 {
				t.Fatalf("it took %v", took)
			}
		}
	})
}

// TestCheckDuringADrain: it is not over because nothing more is begun.
func TestCheckDuringADrain(t *testing.T) {
	one(t, func(w *world) { w.config.Activator = slow{w.active, credential.StepReload, 10 * time.Second} }, func(t *testing.T, w *world) {
		for n := range 20 { // who is woken first is not known
			w.source.rotate(fmt.Sprint("activated ", n))
			w.daemon.CheckSoon()
			time.Sleep(5 * time.Second)
			before, said := w.daemon, make(chan error, 1)
			w.source.rotate(fmt.Sprint("waits ", n))
			go func() { said <- before.Check(context.Background()) }()
			synctest.Wait()
			w.reload(func(*credsync.Config) {})
			if err := <-said; !errors.Is(err, credsync.ErrEnded) {
				t.Fatalf("the check of a daemon that did not apply the version said: %v", err)
			}
			w.check()
			w.wantOnDisk("prod", fmt.Sprint("waits ", n))
		}
	})
}

// slow takes so long for each step of a kind, or for a look.
type slow struct {
	*activator
	kind  string
	takes time.Duration
}

func (a slow) Activate(ctx context.Context, step credential.Step, since time.Time) (credential.Proof, error) {
	if step.Kind == a.kind {
		time.Sleep(a.takes)
	}
	return a.activator.Activate(ctx, step, since)
}

func (a slow) Prove(module string, before []string) credential.Proof {
	if a.kind == "look" {
		time.Sleep(a.takes)
	}
	return a.activator.Prove(module, before)
}

// unheard is a hand edit that no event tells of.
func unheard(w *world, attribute, value string) {
	w.sinks["prod"].change(func(s *sink) { s.touch = nil })
	w.sinks["prod"].edit(attribute, value)
}
