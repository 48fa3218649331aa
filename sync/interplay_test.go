package sync_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// Things that happen while something else is under way. Each of these was a bug once.

// Version 2 is being applied by a slow command when version 3 brings back the content of version 1. It is not "the same
// as what is applied" any more when its turn comes.
func TestVersionThatComesBackDuringAnApplyIsApplied(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.sinks["prod"].change(func(s *sink) { s.applyTime = 70 * time.Second })
		w.source.rotate("two")
		time.Sleep(35 * time.Second)
		w.source.rotate("one")
		time.Sleep(5 * time.Minute)
		w.wantOnDisk("prod", "one")
		w.wantState("prod", credsync.StateInSync)
	})
}

// A version that waits for its retry is destroyed: it must not be applied from memory afterwards.
func TestVersionThatIsRefusedWhileItWaitsIsNotApplied(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.sinks["prod"].change(func(s *sink) { s.applyErr = errors.New("the database is down") })
		w.source.rotate("two")
		time.Sleep(3 * time.Minute)
		w.source.change(func(s *source) { s.err = &credential.Refusal{Version: s.version, Reason: "is destroyed"} })
		time.Sleep(2 * time.Minute)
		w.sinks["prod"].change(func(s *sink) { s.applyErr = nil })
		time.Sleep(5 * time.Minute)
		w.wantOnDisk("prod", "one")
		w.wantState("prod", credsync.StateBlocked)
	})
}

// After a crash nobody knows what is on disk. An apply that fails before its command has begun does not change that: the
// old credential must not be put over what may be the newer one.
func TestFailedApplyAfterACrashRevertsNothing(t *testing.T) {
	for _, owes := range []bool{false, true} { // activation for drift that was about to be reverted when the version came
		synctest.Test(t, func(t *testing.T) {
			w := newInterruptedWorld(t, owes)
			w.sinks["prod"].change(func(s *sink) { s.applyErr = errors.New("env.sh failed") })
			w.start()
			defer func() { w.stop() }()
			w.wantOnDisk("prod", "two")
			time.Sleep(10 * time.Minute)
			w.wantOnDisk("prod", "two")
		})
	}
}

// slowActivator takes its time after it has loaded what is on disk.
type slowActivator struct {
	*activator
	takes time.Duration
}

func (a slowActivator) Activate(ctx context.Context, step credential.Step, since time.Time) (credential.Proof, error) {
	proof, err := a.activator.Activate(ctx, step, since)
	time.Sleep(a.takes)
	return proof, err
}

// Drift is put back while a step is under way that may have loaded it: the step is due again.
func TestActivationThatMayHaveLoadedDriftIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.source.rotate("one")
		w.config.Activator = slowActivator{w.active, 20 * time.Second}
		w.start()
		defer func() { w.stop() }()
		w.wantActivated("reload")
		time.Sleep(time.Minute)
		w.source.rotate("two")
		for w.sinks["prod"].get("authIMSTAClientId") != "two" {
			time.Sleep(time.Second)
			w.settle()
		}
		time.Sleep(5 * time.Second)
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		w.wantOnDisk("prod", "two")
		time.Sleep(5 * time.Minute)
		w.wantActivated("reload", "reload")
	})
}

// A stop in the middle of an activation waits for it, and the next start does not repeat it.
func TestStopWaitsForAnActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.source.rotate("one")
		w.config.Activator = slowActivator{w.active, 20 * time.Second}
		w.launch()
		time.Sleep(10 * time.Second)
		w.stop()
		if w.told("level=ERROR") > 0 {
			t.Errorf("a stop is an error\n%s", w.log)
		}
		w.start()
		defer func() { w.stop() }()
		time.Sleep(time.Minute)
		w.wantActivated("reload")
		w.wantState("prod", credsync.StateInSync)
	})
}

// preparingActivator takes its time before it begins a command.
type preparingActivator struct{ *activator }

func (a preparingActivator) Activate(ctx context.Context, step credential.Step, since time.Time) (credential.Proof, error) {
	select {
	case <-time.After(time.Second):
		return a.activator.Activate(ctx, step, since)
	case <-ctx.Done():
		return credential.Proof{}, ctx.Err()
	}
}

// A stop while a command is being prepared: it is not begun any more, which is no failure.
func TestNoCommandIsBegunAfterAStop(t *testing.T) {
	t.Run("apply", func(t *testing.T) {
		one(t, nil, func(t *testing.T, w *world) {
			w.sinks["prod"].change(func(s *sink) { s.prepareTime = time.Second })
			w.source.rotate("two")
			w.daemon.Announced(0)
			w.settle()
			w.stop()
			w.wantOnDisk("prod", "one")
			if w.told("level=ERROR") > 0 {
				t.Errorf("a stop is an error\n%s", w.log)
			}
			w.start()
			w.wantOnDisk("prod", "two")
		})
	})
	t.Run("activation", func(t *testing.T) {
		one(t, func(w *world) { w.config.Activator = preparingActivator{w.active} }, func(t *testing.T, w *world) {
			w.source.rotate("two")
			w.daemon.Announced(0)
			w.settle()
			w.stop()
			w.wantActivated()
			if w.told("level=ERROR") > 0 {
				t.Errorf("a stop is an error\n%s", w.log)
			}
			w.start()
			w.wantActivated("reload")
		})
	})
}

// Drift that comes more often than the schedule of activation must not put it off for ever.
func TestDriftDoesNotPutOffActivation(t *testing.T) {
	one(t, func(w *world) {}, func(t *testing.T, w *world) {
		w.stop()
		w.config.ActivateAt = cron.Every(2 * time.Hour)
		w.start()
		w.source.rotate("two")
		for range 6 {
			w.driftsFor("prod", time.Hour, "authIMSTAClientId", "mallory")
			w.settle()
		}
		if n := len(w.active.take()); n < 2 {
			t.Errorf("activated %d times in 6 hours at a schedule of 2\n%s", n, w.log)
		}
	})
}

// In alert mode drift is told once, also where there was no good look before it: at the start, or after trouble.
func TestAlertIsToldWhateverCameBefore(t *testing.T) {
	alert := func(w *world) { w.config.Revert = credsync.RevertAlert }
	toldOnce := func(t *testing.T, w *world) {
		t.Helper()
		time.Sleep(time.Hour)
		w.wantState("prod", credsync.StateDrift)
		if n := w.told("level=ERROR"); n != 1 {
			t.Errorf("told %d times, want once\n%s", n, w.log)
		}
	}
	t.Run("at the start", func(t *testing.T) {
		one(t, alert, func(t *testing.T, w *world) {
			w.stop()
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			w.start()
			toldOnce(t, w)
		})
	})
	t.Run("after trouble", func(t *testing.T) {
		one(t, alert, func(t *testing.T, w *world) {
			w.sinks["prod"].change(func(s *sink) { s.lookErr = credential.ErrDamaged })
			w.settle()
			w.sinks["prod"].change(func(s *sink) { s.lookErr = nil })
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			toldOnce(t, w)
		})
	})
}

// A push is a hint: the next poll comes at once, and that is all that comes.
func TestAnnouncedVersionIsPolledForAtOnce(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		began := time.Now()
		polls, _ := w.source.counts()
		w.daemon.Announced(0)
		w.settle()
		if now, _ := w.source.counts(); now != polls+1 {
			t.Errorf("%d polls after one announcement, want 1", now-polls)
		}
		w.source.rotate("two")
		w.daemon.Announced(0)
		w.wantOnDisk("prod", "two")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("applied %v after it was announced", waited)
		}
	})
}

// The poll under way when a version is announced may have been answered before: another one follows it, whatever the
// number of announcements.
func TestAnnouncedDuringAPollIsPolledForAgain(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		hang := make(chan struct{})
		w.source.change(func(s *source) { s.hang = hang })
		w.daemon.Announced(0)
		w.settle()
		polls, _ := w.source.counts()
		for range 100 {
			w.daemon.Announced(0)
			w.settle()
		}
		w.source.change(func(s *source) { s.hang = nil })
		close(hang)
		w.settle()
		if now, _ := w.source.counts(); now != polls+1 {
			t.Errorf("%d polls after the one under way, want 1", now-polls)
		}
	})
}
