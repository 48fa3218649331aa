package sync_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// Orders of an operator that meet each other, a crash, a reload, or a source that hangs.

// TestFirstApplyThatWasInterrupted: what an interrupted command may have written over an incomplete credential is no one else's, and is
// not held.
func TestFirstApplyThatWasInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.config.HoldFirst = true
		w.source.rotate("one")
		store, err := state.Open(w.dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Save("prod", state.Record{Applying: &w.source.version}); err != nil {
			t.Fatal(err)
		}
		store.Close()
		w.sinks["prod"].attributes = byHand()
		w.start()
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
		w.stop()
	})
}

// TestOrderOfAPausedInstance fails, and is not carried out later.
func TestOrderOfAPausedInstance(t *testing.T) {
	firstStart(t, func(t *testing.T, w *world) {
		w.pauseFor(time.Hour)
		if err := w.daemon.Check(context.Background()); err != nil {
			t.Error(err)
		}
		w.wantState("prod", credsync.StatePaused)
		w.resume()
		time.Sleep(time.Hour)
		w.isHeld()
	})
}

// TestHeldIsReleasedByTheStart: by sync where no daemon runs, and by first_apply: now.
func TestHeldIsReleasedByTheStart(t *testing.T) {
	for name, change := range map[string]func(c *credsync.Config){
		"sync":             func(c *credsync.Config) { c.Ordered = true },
		"first_apply: now": func(c *credsync.Config) { c.HoldFirst = false },
	} {
		for _, reload := range []bool{false, true} {
			if reload && name == "sync" {
				continue
			}
			t.Run(name, func(t *testing.T) {
				firstStart(t, func(t *testing.T, w *world) {
					w.isHeld()
					if reload {
						w.reload(change)
					} else {
						w.stop()
						change(&w.config)
						w.start()
					}
					w.wantState("prod", credsync.StateInSync)
					w.wantOnDisk("prod", "one")
				})
			})
		}
	}
}

// TestHeldOverAnotherQuestion: the same secret read by other names, and another secret, is no newer version.
func TestHeldOverAnotherQuestion(t *testing.T) {
	for name, change := range map[string]func(w *world, c *credsync.Config){
		"fields": func(w *world, c *credsync.Config) {
			w.source.change(func(s *source) { s.others = map[string]string{"other": "another"} })
			c.Instances[0].Fields = credential.Fields{credential.FieldClientID: "other"}
		},
		"secret": func(w *world, c *credsync.Config) {
			other := &source{}
			other.rotate("another")
			other.version.Secret = "/secret/another"
			c.Instances[0].Source = other
		},
	} {
		t.Run(name, func(t *testing.T) {
			firstStart(t, func(t *testing.T, w *world) {
				w.isHeld()
				w.reload(func(c *credsync.Config) { change(w, c) })
				time.Sleep(2 * time.Minute)
				w.isHeld()
				w.config.Instances[0].Source.(*source).rotate("two")
				w.config.Instances[0].Source.(*source).change(func(s *source) { s.others = map[string]string{"other": "two"} })
				time.Sleep(2 * time.Minute)
				w.wantState("prod", credsync.StateInSync)
				w.wantOnDisk("prod", "two")
			})
		})
	}
}

// TestAdoptOfWhatIsApplied keeps what is known of it, and the activation that it waits for.
func TestAdoptOfWhatIsApplied(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.reload(func(c *credsync.Config) { c.ActivateAt = cron.Every(time.Hour) })
		w.source.rotate("two")
		time.Sleep(2 * time.Minute)
		w.wantState("prod", credsync.StateActivationPending)
		if err := w.daemon.Adopt(context.Background(), nil); err != nil {
			t.Error(err)
		}
		w.wantState("prod", credsync.StateActivationPending)
		w.wantActivated()
		time.Sleep(2 * time.Hour)
		w.wantState("prod", credsync.StateInSync)
		w.wantActivated("reload")
		applied := w.sinks["prod"].applied()
		w.source.rotate("two")
		time.Sleep(2 * time.Minute)
		if in := w.only(); in.AppliedVersion != 3 || w.sinks["prod"].applied() != applied {
			t.Errorf("%+v, %d applies", in, w.sinks["prod"].applied()-applied)
		}
	})
}

// TestAdoptWhileTheSourceHangs: what is adopted is what is on disk now, and not what the last look saw.
func TestAdoptWhileTheSourceHangs(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.source.change(func(s *source) { s.hang, s.words = make(chan struct{}), time.Hour })
		time.Sleep(5 * time.Minute)
		w.wantState("prod", credsync.StateDegraded)
		w.pauseFor(time.Hour)
		w.sinks["prod"].change(func(s *sink) { s.touch, s.lookTime = nil, time.Second })
		w.sinks["prod"].edit("authIMSTAClientId", "by-hand")
		if err := w.daemon.Adopt(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		w.resume()
		w.daemon.CheckSoon()
		time.Sleep(time.Minute)
		w.wantOnDisk("prod", "by-hand")
		close(w.source.hang)
		w.settle() // the poll has ended before the daemon is stopped
	})
}

// TestAdoptMeetsARotation: the ids on disk are compared with the version that it will stand for.
func TestAdoptMeetsARotation(t *testing.T) {
	firstStart(t, func(t *testing.T, w *world) {
		w.sinks["prod"].edit("authIMSTAClientId", "one")
		w.stop()
		if err := os.Remove(filepath.Join(w.dir, "prod.json")); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.isHeld()
		hang := make(chan struct{})
		w.source.change(func(s *source) { s.hang = hang })
		w.daemon.CheckSoon()
		w.settle() // a poll is under way
		done := make(chan error)
		go func() { done <- w.daemon.Adopt(context.Background(), nil) }()
		w.settle()
		w.sinks["prod"].change(func(s *sink) { s.lookTime = 10 * time.Second })
		w.daemon.Touched(0, false)
		w.source.change(func(s *source) { s.hang = nil })
		close(hang)
		w.settle() // version 1 was read for it, and the look goes on
		w.source.rotate("two")
		w.daemon.Announced(0)
		if err := <-done; err == nil {
			t.Errorf("adopted over another client id: %+v", w.only())
		}
		w.sinks["prod"].change(func(s *sink) { s.lookTime = 0 })
		time.Sleep(time.Minute) // the look has ended before the daemon is stopped
	})
}

// TestOrdersAfterTheEnd are refused: a daemon that has ended, or was replaced, can keep none of them.
func TestOrdersAfterTheEnd(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		before := w.daemon
		w.reload(func(*credsync.Config) {})
		pause := state.Pause{Since: time.Now(), Until: time.Now().Add(time.Hour)}
		for what, err := range map[string]error{
			"pause": before.Pause(context.Background(), pause), "resume": before.Resume(context.Background(), nil),
			"adopt": before.Adopt(context.Background(), nil),
		} {
			if !errors.Is(err, credsync.ErrEnded) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// TestPausedInstanceComesBack: one that a reload took away, and another brought back after the clock was set back.
func TestPausedInstanceComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod", "stage")
		w.source.rotate("one")
		w.start()
		far := time.Now().Add(24 * 365 * time.Hour)
		if err := w.daemon.Pause(context.Background(), state.Pause{Since: far, Until: far.Add(time.Hour)}, "stage"); err != nil {
			t.Fatal(err)
		}
		all := w.config.Instances
		w.reload(func(c *credsync.Config) { c.Instances = all[:1] })
		time.Sleep(time.Minute)
		w.reload(func(c *credsync.Config) { c.Instances = all })
		w.wantState("stage", credsync.StatePaused)
		w.source.rotate("two")
		time.Sleep(30 * time.Minute)
		w.wantState("stage", credsync.StatePaused)
		w.wantOnDisk("stage", "one")
		time.Sleep(31 * time.Minute)
		w.wantState("stage", credsync.StateInSync)
		w.wantOnDisk("stage", "two")
		w.stop()
	})
}
