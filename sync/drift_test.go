package sync_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	stdsync "sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

func TestDriftIsPutBack(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		w.wantOnDisk("prod", "one")
		w.wantActivated() // seen right a moment ago: nobody has loaded it
		time.Sleep(time.Minute)
		w.sinks["prod"].edit("authIMSTAClientSecret", "@stolen")
		w.wantOnDisk("prod", "one")
		w.wantActivated() // last seen right a minute ago, and changed just now
		w.driftsFor("prod", 3*time.Second, "authIMSTAClientSecret", "@stolen")
		w.settle()
		if got := w.sinks["prod"].get("authIMSTAClientSecret"); got != "@cipher1" {
			t.Errorf("secret on disk is %q", got)
		}
		w.wantActivated("reload") // the processes may have read it
		if got := w.daemon.Status()[0].RevertedTotal; got != 3 {
			t.Errorf("%d reverts counted, want 3", got)
		}
		if w.sinks["prod"].applied() != 1 {
			t.Error("drift was put back with nlserver")
		}
	})
}

func TestDriftIsPutBackWhileTheSourceHangs(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		hang := make(chan struct{})
		w.source.change(func(s *source) { s.hang = hang })
		time.Sleep(time.Minute)
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		w.wantOnDisk("prod", "one")
		close(hang)
	})
}

func TestDriftFoundAtStartIsActivated(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.stop()
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		w.source.change(func(s *source) { s.err = errors.New("vault is down") })
		w.start()
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
		w.wantState("prod", credsync.StateDegraded)
	})
}

// A poll that is under way when drift has to be put back with the credential does not bring it: the next one follows at once.
func TestDriftFoundDuringAPoll(t *testing.T) {
	one(t, func(w *world) { w.config.Revert = credsync.RevertApply }, func(t *testing.T, w *world) {
		hang := make(chan struct{})
		w.source.change(func(s *source) { s.hang = hang })
		time.Sleep(time.Minute)
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		w.settle()
		w.source.change(func(s *source) { s.hang = nil })
		close(hang)
		w.wantOnDisk("prod", "one")
		w.wantState("prod", credsync.StateInSync)
	})
}

// Drift that the processes may have read is put back only when it is on record that they must be told: a start after a crash
// in between finds nothing wrong in the file.
func TestActivationThatARevertOwesSurvivesACrash(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		var owes bool
		w.sinks["prod"].change(func(s *sink) {
			s.beforeRestore = func() { owes = strings.Contains(w.recordOnDisk("prod"), `"revert_owes_activation": true`) }
		})
		w.driftsFor("prod", time.Minute, "authIMSTAClientId", "mallory")
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
		if !owes {
			t.Error("a crash after the revert would have lost the activation")
		}
		record := w.recordOnDisk("prod")
		if strings.Contains(record, "revert_owes_activation") {
			t.Errorf("it is still owed: %s", record)
		}
		w.stop()
		w.sinks["prod"].change(func(s *sink) { s.beforeRestore = nil })
		owing := strings.Replace(record, "{", `{"revert_owes_activation": true,`, 1)
		if err := os.WriteFile(filepath.Join(w.dir, "prod.json"), []byte(owing), 0o600); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.wantActivated("reload")

		// The same with a command that was killed before it wrote anything.
		w.stop()
		both := strings.Replace(owing, "{", `{"applying": {"number": 2, "created": "2000-01-01T00:00:00Z"},`, 1)
		if err := os.WriteFile(filepath.Join(w.dir, "prod.json"), []byte(both), 0o600); err != nil {
			t.Fatal(err)
		}
		w.source.change(func(s *source) { s.err = errors.New("sealed") })
		w.start()
		w.wantActivated("reload")
	})
}

// How old drift is cannot be told where events were missed, or its change time makes no sense; then it counts from when the file
// was last seen right.
func TestAgeOfDriftThatCannotBeTold(t *testing.T) {
	for name, drift := range map[string]func(*world, *sink){
		"events were missed": func(w *world, s *sink) {
			s.edit("authIMSTAClientId", "mallory")
			w.daemon.Touched(0, true)
		},
		"another file was put there": func(w *world, s *sink) {
			s.editAt(time.Now().Add(-time.Hour), "authIMSTAClientId", "mallory")
		},
		"changed in the future": func(w *world, s *sink) {
			s.editAt(time.Now().Add(time.Second), "authIMSTAClientId", "mallory")
		},
		"no change time": func(w *world, s *sink) {
			s.editAt(time.Time{}, "authIMSTAClientId", "mallory")
		},
		"changed twice, heard first": func(w *world, s *sink) {
			s.change(func(s *sink) { s.lookErr = credential.ErrDamaged })
			time.Sleep(3 * time.Second)
			s.edit("authIMSTAClientId", "mallory")
			s.change(func(s *sink) { s.lookErr = nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, nil, func(t *testing.T, w *world) {
				time.Sleep(time.Minute)
				drift(w, w.sinks["prod"])
				time.Sleep(15 * time.Second)
				w.wantOnDisk("prod", "one")
				w.wantActivated("reload")
			})
		})
	}
}

// Events are lost during a look that has read the file already: the change of the file that is heard of then is not the first.
func TestAgeOfDriftThatCameDuringALook(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		time.Sleep(time.Minute)
		s := w.sinks["prod"]
		s.change(func(s *sink) { s.lookTime = 7 * time.Second })
		w.settle() // the look has read it
		s.change(func(s *sink) { s.lookTime, s.touch = 0, nil })
		s.edit("authIMSTAClientId", "mallory")
		time.Sleep(6900 * time.Millisecond)
		s.edit("another", "") // which only moves its change time
		w.daemon.Touched(0, true)
		time.Sleep(10 * time.Second)
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
	})
}

// What alert mode left alone was loaded.
func TestDriftThatWasOnlyReportedIsActivated(t *testing.T) {
	one(t, func(w *world) { w.config.Revert = credsync.RevertAlert }, func(t *testing.T, w *world) {
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		time.Sleep(3 * time.Second)
		w.sinks["prod"].edit("authIMSTAClientSecret", "@stolen")
		w.reload(func(c *credsync.Config) { c.Revert = credsync.RevertSplice })
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
	})
}

// A revert may wait for a writer whose drift is on disk meanwhile: how old that is counts from when it was put back.
func TestSlowRevertIsActivated(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		s := w.sinks["prod"]
		s.change(func(s *sink) { s.restoreTime = 3 * time.Second })
		s.edit("authIMSTAClientId", "mallory") // a moment after the last good look
		time.Sleep(4 * time.Second)
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
	})
}

func TestRevertModes(t *testing.T) {
	t.Run("alert", func(t *testing.T) {
		one(t, func(w *world) { w.config.Revert = credsync.RevertAlert }, func(t *testing.T, w *world) {
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			w.wantState("prod", credsync.StateDrift)
			w.wantOnDisk("prod", "mallory")
			if w.told("level=ERROR") != 1 {
				t.Errorf("want one alarm\n%s", w.log)
			}
		})
	})
	t.Run("nlserver", func(t *testing.T) {
		one(t, func(w *world) { w.config.Revert = credsync.RevertApply }, func(t *testing.T, w *world) {
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			w.wantOnDisk("prod", "one")
			w.wantState("prod", credsync.StateInSync)
			if got := w.sinks["prod"].applied(); got != 2 {
				t.Errorf("%d applies, want 2", got)
			}
			if got := w.daemon.Status()[0].RevertedTotal; got != 1 {
				t.Errorf("%d reverts counted, want 1", got)
			}
		})
	})
	t.Run("splice cannot work", func(t *testing.T) {
		one(t, func(w *world) {
			w.sinks["prod"].restoreErr = fmt.Errorf("%w: it is a mount point", credential.ErrCannotSplice)
		}, func(t *testing.T, w *world) {
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			w.wantOnDisk("prod", "one")
			w.wantState("prod", credsync.StateInSync)
			if got := w.sinks["prod"].applied(); got != 2 {
				t.Errorf("%d applies, want 2", got)
			}
		})
	})
}

func TestDriftWarEnds(t *testing.T) {
	one(t, func(w *world) { w.config.MaxReverts = 3 }, func(t *testing.T, w *world) {
		for i := range 3 {
			w.sinks["prod"].edit("authIMSTAClientId", fmt.Sprint("mallory", i))
			w.wantOnDisk("prod", "one")
			time.Sleep(time.Second)
		}
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		w.wantState("prod", credsync.StateDrift)
		w.wantOnDisk("prod", "mallory")
		for range 5 {
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			time.Sleep(time.Second)
		}
		if n := w.told("another program keeps changing the credential"); n != 1 {
			t.Errorf("told %d times, want once\n%s", n, w.log)
		}
		// The count survives a restart, and a rotation is applied all the same.
		w.stop()
		w.start()
		w.wantState("prod", credsync.StateDrift)
		w.source.rotate("two")
		time.Sleep(time.Minute)
		w.wantOnDisk("prod", "two")
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		w.wantState("prod", credsync.StateDrift)
		time.Sleep(time.Hour)
		w.wantOnDisk("prod", "two")
		w.wantState("prod", credsync.StateInSync)
	})
}

// A revert that fails at its last step, the sync of the directory, has put the drift back all the same: it is counted and
// followed by activation, though the next look finds nothing wrong.
func TestRevertThatFailsAtItsEndIsActivated(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		s := w.sinks["prod"]
		s.change(func(s *sink) { s.restoreErrAfter = errors.New("sync directory: input/output error") })
		w.driftsFor("prod", time.Minute, "authIMSTAClientId", "mallory")
		w.settle()
		s.change(func(s *sink) { s.restoreErrAfter = nil })
		time.Sleep(time.Minute)
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
		if got := w.daemon.Status()[0].RevertedTotal; got != 1 {
			t.Errorf("%d reverts counted, want 1", got)
		}
		if n := w.told(`msg="drift reverted" instance=prod attribute=[authIMSTAClientId] change=[changed]`); n != 1 {
			t.Errorf("told %d times of what was reverted\n%s", n, w.log)
		}
	})
}

// The same with drift that is fresh: it is counted too, or the brake would never hold.
func TestRevertsThatFailAtTheirEndAreBraked(t *testing.T) {
	one(t, func(w *world) { w.config.MaxReverts = 3 }, func(t *testing.T, w *world) {
		s := w.sinks["prod"]
		s.change(func(s *sink) { s.restoreErrAfter = errors.New("sync directory: no space left on device") })
		for range 10 {
			time.Sleep(100 * time.Millisecond)
			s.edit("authIMSTAClientId", "mallory")
			w.settle()
		}
		time.Sleep(time.Minute)
		w.wantState("prod", credsync.StateDrift)
		w.wantOnDisk("prod", "mallory")
		w.wantActivated()
		if got := w.daemon.Status()[0].RevertedTotal; got != 3 || w.told("drift reverted") != 3 {
			t.Errorf("%d reverts counted, want 3\n%s", got, w.log)
		}
	})
}

// And one that comes while a step is under way, which may have loaded the drift, is followed by another.
func TestRevertThatFailsAtItsEndDuringActivationIsActivated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.source.rotate("one")
		w.config.Activator = slowActivator{w.active, 20 * time.Second}
		w.start()
		defer func() { w.stop() }()
		s := w.sinks["prod"]
		w.source.rotate("two")
		w.daemon.Announced(0)
		time.Sleep(5 * time.Second)
		w.wantActivated("reload", "reload")
		s.change(func(s *sink) { s.restoreErrAfter = errors.New("sync directory: no space left on device") })
		s.edit("authIMSTAClientId", "mallory")
		w.wantOnDisk("prod", "two")
		time.Sleep(5 * time.Minute)
		w.wantActivated("reload")
	})
}

// Events may never come (a network file system, a full queue): the schedule alone heals.
func TestVerifyFindsDriftWithoutEvents(t *testing.T) {
	one(t, func(w *world) { w.config.Verify = cron.Every(10 * time.Minute) }, func(t *testing.T, w *world) {
		s := w.sinks["prod"]
		s.change(func(s *sink) { s.touch = nil })
		s.edit("authIMSTAClientId", "mallory")
		time.Sleep(11 * time.Minute)
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
	})
}

// Drift that was seen and is about to be put back is not told as in sync, however short that is.
func TestKnownDriftIsNeverInSync(t *testing.T) {
	var mu stdsync.Mutex
	var told []credsync.State
	take := func() []credsync.State {
		mu.Lock()
		defer mu.Unlock()
		all := told
		told = nil
		return all
	}
	one(t, func(w *world) {
		w.config.OnStatus = func(s []credsync.InstanceStatus) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, s[0].State)
		}
	}, func(t *testing.T, w *world) {
		s := w.sinks["prod"]
		s.change(func(s *sink) { s.restoreTime = 100 * time.Millisecond })
		time.Sleep(time.Second)
		w.driftsFor("prod", time.Minute, "authIMSTAClientId", "mallory")
		w.settle()
		take() // from when it was seen
		time.Sleep(50 * time.Millisecond)
		w.daemon.CheckSoon() // which has it told while it is being put back
		w.settle()
		states := take()
		if len(states) == 0 {
			t.Error("nothing was told")
		}
		for _, state := range states {
			if state != credsync.StateDrift {
				t.Errorf("it is told as %s", state)
			}
		}
		time.Sleep(time.Second)
		w.wantState("prod", credsync.StateInSync)
	})
}
