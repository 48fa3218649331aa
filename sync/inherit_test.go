package sync_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	stdsync "sync"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

func unchanged(*credsync.Config) {}

// statusNow is the status of an instance before anything else could happen.
func (w *world) statusNow(name string) credsync.InstanceStatus {
	w.t.Helper()
	all := w.daemon.Status()
	i := slices.IndexFunc(all, func(in credsync.InstanceStatus) bool { return in.Name == name })
	if i < 0 {
		w.t.Fatalf("no instance %s in the status", name)
	}
	return all[i]
}

// What is in order stays so at once, also with a source that does not answer, and nothing is done or told anew.
func TestReloadKeepsWhatIsKnown(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		before := w.statusNow("prod")
		hang := make(chan struct{})
		w.source.change(func(s *source) { s.hang = hang })
		told := w.told("level=INFO") + w.told("level=WARN")
		w.reload(unchanged)
		if now := w.statusNow("prod"); now != before {
			t.Errorf("the status was %+v and is %+v", before, now)
		}
		if s := w.statusNow("prod"); !s.SourceReached || s.LastPoll.IsZero() {
			t.Errorf("what was known of the source is lost: %+v", s)
		}
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		w.wantOnDisk("prod", "one")
		close(hang)
		w.wantState("prod", credsync.StateInSync)
		w.wantActivated() // the drift was fresh, though another daemon saw the file right
		if now := w.told("level=INFO") + w.told("level=WARN"); now != told+1 {
			t.Errorf("%d lines more than the revert's\n%s", now-told-1, w.log)
		}
	})
}

// A source that takes its time to end when it is cut short, as a login's answer is waited for, holds up no revert.
func TestFilesAreGuardedWhilePollsEnd(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.source.change(func(s *source) { s.hang, s.words = make(chan struct{}), 1500*time.Millisecond })
		time.Sleep(40 * time.Second) // a poll is under way, and does not hang yet
		began := time.Now()
		go func() {
			time.Sleep(time.Second)
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			time.Sleep(100 * time.Millisecond) // the poll has not ended
			if got := w.sinks["prod"].get("authIMSTAClientId"); got != "one" {
				t.Errorf("a moment after the edit it is %q\n%s", got, w.log)
			}
		}()
		w.reload(unchanged)
		if took := time.Since(began); took < 1500*time.Millisecond {
			t.Errorf("nothing was waited for: %s", took)
		}
		w.wantState("prod", credsync.StateInSync)
	})
}

// A poll that does not end when it is cut short holds up no apply for longer than a reload may take.
func TestReloadIsRefusedBesideAPollThatDoesNotEnd(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.source.change(func(s *source) { s.hang, s.words = make(chan struct{}), 50*time.Second })
		time.Sleep(31 * time.Second) // a poll is under way
		w.source.change(func(s *source) { s.hang = nil })
		began := time.Now()
		err := w.daemon.Drain()
		if took := time.Since(began); err == nil || took > 7*time.Second {
			t.Errorf("it ended after %s: %v", took, err)
		}
		w.source.rotate("two")
		time.Sleep(2 * time.Minute)
		w.wantOnDisk("prod", "two")
	})
}

// A file that drifts all the time is reverted by the one daemon and then by the other, and holds up no reload.
func TestReloadWhileAFileDriftsAllTheTime(t *testing.T) {
	one(t, func(w *world) { w.config.MaxReverts = 10000 }, func(t *testing.T, w *world) {
		s := w.sinks["prod"]
		s.change(func(s *sink) { s.restoreTime = 10 * time.Millisecond })
		done := make(chan struct{})
		var writer stdsync.WaitGroup
		writer.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
					s.edit("authIMSTAClientId", "mallory")
				}
			}
		})
		time.Sleep(time.Second)
		w.reload(unchanged)
		time.Sleep(time.Second)
		close(done)
		writer.Wait()
		time.Sleep(time.Second)
		w.wantOnDisk("prod", "one")
		w.wantState("prod", credsync.StateInSync)
		w.wantActivated()
	})
}

// Drift that comes while nobody looks, because a reload takes long, may have been read by Campaign's processes.
func TestDriftDuringALongReloadIsActivated(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.reload(func(*credsync.Config) {
			time.Sleep(5 * time.Second)
			w.sinks["prod"].change(func(s *sink) { s.touch = nil })
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		})
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
	})
}

// A credential that waits for its retry is in hand: it needs no source any more, is tried at once, and is not news.
func TestReloadKeepsWhatWaits(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.sinks["prod"].change(func(s *sink) { s.applyErr = errors.New("the database is down") })
		w.source.rotate("two")
		time.Sleep(5 * time.Minute)
		w.wantState("prod", credsync.StatePending)
		w.source.change(func(s *source) { s.err = errors.New("sealed") })
		_, reads := w.source.counts()
		w.sinks["prod"].change(func(s *sink) { s.applyErr = nil })
		w.reload(unchanged)
		w.wantOnDisk("prod", "two")
		w.wantActivated("reload")
		if _, now := w.source.counts(); now != reads {
			t.Errorf("the secret was read %d times more", now-reads)
		}
		if n := w.told(`msg="new version" instance=prod version=2`); n != 1 {
			t.Errorf("the new version was told %d times", n)
		}
	})
}

// The same alarms are not raised again: a refused secret, a source out of reach, drift that is only reported.
func TestReloadRepeatsNoAlarm(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(w *world)
		trouble func(w *world)
		alarm   string
		state   credsync.State
	}{
		{"refused", nil, func(w *world) {
			w.source.rotate("two")
			w.source.change(func(s *source) { s.err = &credential.Refusal{Version: s.version, Reason: "is destroyed"} })
		}, "secret refused, keeping the applied credential", credsync.StateBlocked},
		{"out of reach", nil, func(w *world) {
			w.source.change(func(s *source) { s.err = errors.New("sealed") })
		}, "source unreachable, keeping the applied credential", credsync.StateDegraded},
		{"drift", func(w *world) { w.config.Revert = credsync.RevertAlert }, func(w *world) {
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		}, "drift not reverted: drift.revert is alert", credsync.StateDrift},
		{"broken file", nil, func(w *world) {
			w.sinks["prod"].change(func(s *sink) { s.lookErr = credential.ErrMissing })
		}, "instance file unusable, not writing", credsync.StateDegraded},
		{"activation", nil, func(w *world) {
			w.active.fail(errors.New("iRc=-53"))
			w.source.rotate("two")
		}, "credential not activated", credsync.StateActivationPending},
	} {
		t.Run(c.name, func(t *testing.T) {
			one(t, c.prepare, func(t *testing.T, w *world) {
				c.trouble(w)
				time.Sleep(2 * time.Minute)
				w.wantState("prod", c.state)
				before := w.statusNow("prod")
				alarms := func() int {
					return w.told(`level=ERROR msg="`+c.alarm) + w.told(`level=WARN msg="`+c.alarm)
				}
				if n := alarms(); n != 1 {
					t.Fatalf("told %d times\n%s", n, w.log)
				}
				w.reload(unchanged)
				if now := w.statusNow("prod"); now.State != before.State || now.LastError != before.LastError || now.WantedVersion != before.WantedVersion {
					t.Errorf("the status was %+v and is %+v", before, now)
				}
				time.Sleep(5 * time.Minute)
				w.wantState("prod", c.state)
				if n := alarms(); n != 1 {
					t.Errorf("told %d times\n%s", n, w.log)
				}
			})
		})
	}
}

// What was refused for a setting that changed is asked for again.
func TestReloadWithRollbackAllowed(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.source.rotate("two")
		time.Sleep(40 * time.Second)
		w.wantOnDisk("prod", "two")
		w.source.change(func(s *source) {
			s.version = credential.Version{Number: 1, Created: s.version.Created.Add(-time.Hour)}
			s.secret = newCredential("one")
		})
		time.Sleep(40 * time.Second)
		w.wantState("prod", credsync.StateBlocked)
		w.reload(func(c *credsync.Config) { c.Instances[0].AllowRollback = true })
		w.wantOnDisk("prod", "one")
		w.wantState("prod", credsync.StateInSync)
	})
}

// Of another source nothing is known before it was asked; the version that waited was the other's.
func TestReloadWithAnotherSource(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.sinks["prod"].change(func(s *sink) { s.applyErr = errors.New("the database is down") })
		w.source.rotate("two")
		time.Sleep(time.Minute)
		other := &source{hang: make(chan struct{})}
		other.rotate("three")
		w.sinks["prod"].change(func(s *sink) { s.applyErr = nil })
		w.reload(func(c *credsync.Config) { c.Instances[0].Source = other })
		w.wantState("prod", credsync.StatePending)
		if s := w.statusNow("prod"); s.WantedVersion != 0 || s.AppliedVersion != 1 {
			t.Errorf("%+v", s)
		}
		w.wantOnDisk("prod", "one")
		close(other.hang)
		w.wantOnDisk("prod", "three")
		w.wantState("prod", credsync.StateInSync)
	})
}

// A record that cannot be saved is not lost with the daemon that made it, and is saved by the next as soon as it can be.
func TestReloadWithAnUnsavedRecord(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		applies := w.sinks["prod"].applied()
		record := filepath.Join(w.dir, "prod.json")
		if err := errors.Join(os.Remove(record), os.MkdirAll(filepath.Join(record, "in the way"), 0o700)); err != nil {
			t.Fatal(err)
		}
		w.source.rotate("one") // the same credential: nlserver is not needed, only the record
		time.Sleep(5 * time.Minute)
		w.reload(unchanged)
		w.wantState("prod", credsync.StateInSync)
		if s := w.statusNow("prod"); s.AppliedVersion != 2 || s.NotSaved == "" {
			t.Errorf("%+v", s)
		}
		if now := w.sinks["prod"].applied(); now != applies {
			t.Errorf("%d applies more", now-applies)
		}
		if n := w.told("level=WARN msg=\"state not saved"); n != 1 {
			t.Errorf("told %d times\n%s", n, w.log)
		}
		if err := os.RemoveAll(record); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if !strings.Contains(w.recordOnDisk("prod"), `"number": 2`) {
			t.Errorf("not saved: %s", w.recordOnDisk("prod"))
		}
		if s := w.statusNow("prod"); s.NotSaved != "" {
			t.Errorf("saved, and yet %q", s.NotSaved)
		}
	})
}

// The brake lets go, and says so.
func TestReloadReleasesTheBrake(t *testing.T) {
	one(t, func(w *world) { w.config.MaxReverts = 1 }, func(t *testing.T, w *world) {
		for range 2 {
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			w.settle()
		}
		w.wantState("prod", credsync.StateDrift)
		w.reload(unchanged)
		w.wantOnDisk("prod", "one")
		w.wantState("prod", credsync.StateInSync)
		if n := w.statusNow("prod").DetectedTotal; n != 2 {
			t.Errorf("drift was found %d times, want 2: a reload does not begin to count anew", n)
		}
	})
}

// A schedule that counts from the start comes also where reloads are more frequent; one that was due and not served yet is
// not forgotten.
func TestReloadKeepsTheReapplySchedule(t *testing.T) {
	one(t, func(w *world) { w.config.Reapply = cron.Every(time.Hour) }, func(t *testing.T, w *world) {
		applies := w.sinks["prod"].applied()
		for range 9 {
			time.Sleep(10 * time.Minute)
			w.reload(func(c *credsync.Config) { c.Reapply = cron.Every(time.Hour) })
		}
		if now := w.sinks["prod"].applied(); now != applies+1 {
			t.Errorf("%d applies in 90 minutes, want 1", now-applies)
		}
		w.source.change(func(s *source) { s.err = errors.New("sealed") })
		time.Sleep(40 * time.Minute)
		w.reload(unchanged)
		w.source.change(func(s *source) { s.err = nil })
		time.Sleep(2 * time.Minute)
		if now := w.sinks["prod"].applied(); now != applies+2 {
			t.Errorf("%d applies, want 2", now-applies)
		}
	})
}

// An instance that comes is applied; the others are left as they are; one that goes is known no more.
func TestReloadWithOtherInstances(t *testing.T) {
	inWorld(t, []string{"stays", "goes"}, nil, func(t *testing.T, w *world) {
		w.wantState("stays", credsync.StateInSync)
		w.active.take()
		before := w.statusNow("stays")
		comes := &sink{attributes: credential.Attributes{}}
		w.sinks["comes"] = comes
		w.reload(func(c *credsync.Config) {
			c.Instances = []credsync.Instance{c.Instances[0], {Name: "comes", Source: w.source, Sink: comes}}
		})
		w.wantState("comes", credsync.StateInSync)
		w.wantOnDisk("comes", "one")
		if n := w.sinks["stays"].applied(); n != 1 {
			t.Errorf("the other was applied %d times", n)
		}
		now := w.statusNow("stays")
		before.LastCheck, now.LastCheck = credsync.Moment{}, credsync.Moment{}
		if now != before {
			t.Errorf("the status was %+v and is %+v", before, now)
		}
		if len(w.daemon.Status()) != 2 {
			t.Errorf("%+v", w.daemon.Status())
		}
	})
}
