package sync_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// inWorld runs f with a daemon that has applied version 1 (client id "one") to the instances and activated it.
func inWorld(t *testing.T, names []string, prepare func(w *world), f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, names...)
		w.source.rotate("one")
		if prepare != nil {
			prepare(w)
		}
		w.start()
		defer func() { w.stop() }()
		f(t, w)
	})
}

func one(t *testing.T, prepare func(w *world), f func(t *testing.T, w *world)) {
	t.Helper()
	inWorld(t, []string{"prod"}, prepare, func(t *testing.T, w *world) {
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
		f(t, w)
	})
}

func TestRotationIsAppliedAndActivatedOnce(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.source.rotate("two")
		time.Sleep(40 * time.Second)
		w.wantOnDisk("prod", "two")
		w.wantState("prod", credsync.StateInSync)
		w.wantActivated("reload")
		if got := w.sinks["prod"].applied(); got != 2 {
			t.Errorf("%d applies, want 2", got)
		}
	})
}

// In sync and idle nothing is read but versions, nothing is written, and nothing is told.
func TestIdleIsQuiet(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		time.Sleep(time.Minute) // past the spread of the second poll
		polls, reads := w.source.counts()
		before := w.log.String()
		time.Sleep(time.Hour)
		w.settle()
		morePolls, moreReads := w.source.counts()
		if n := morePolls - polls; n < 100 || n > 140 {
			t.Errorf("%d polls in an hour at 30 s", n)
		}
		if moreReads != reads {
			t.Error("the secret was read without need")
		}
		if w.log.String() != before {
			t.Errorf("idle and yet told:\n%s", w.log.String()[len(before):])
		}
		if w.sinks["prod"].applied() != 1 {
			t.Error("idle and yet applied")
		}
	})
}

func TestSameCredentialUnderANewVersionIsOnlyRecorded(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.source.rotate("one")
		time.Sleep(40 * time.Second)
		w.wantState("prod", credsync.StateInSync)
		w.wantActivated()
		if got := w.daemon.Status()[0].AppliedVersion; got != 2 {
			t.Errorf("applied version is %d, want 2", got)
		}
		if w.sinks["prod"].applied() != 1 {
			t.Error("applied again")
		}
	})
}

// Whatever the source says that is no newer, whole credential: what works stays.
func TestKeepsWhatWorks(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *source)
		want   credsync.State
	}{
		{"deleted", func(s *source) {
			s.err = &credential.Refusal{Version: credential.Version{Number: 2, Created: time.Now()}, Reason: "is deleted"}
		}, credsync.StateBlocked},
		{"no secret", func(s *source) { s.err = &credential.Refusal{Reason: "no secret at secret/prod"} }, credsync.StateBlocked},
		{"out of reach", func(s *source) { s.err = errors.New("connection refused") }, credsync.StateDegraded},
		{"goes back", func(s *source) {
			s.version = credential.Version{Number: 0, Created: s.version.Created.Add(-time.Hour)}
			s.secret = newCredential("zero")
		}, credsync.StateBlocked},
	} {
		t.Run(c.name, func(t *testing.T) {
			one(t, nil, func(t *testing.T, w *world) {
				before := w.told("level=WARN")
				w.source.change(c.change)
				time.Sleep(9 * time.Minute)
				w.wantState("prod", c.want)
				w.wantOnDisk("prod", "one")
				w.wantActivated()
				if n := w.told("level=ERROR") + w.told("level=WARN") - before; n != 1 {
					t.Errorf("told %d times, want once\n%s", n, w.log)
				}
				// And when it is over, the next version counts.
				w.source.change(func(s *source) { s.version = credential.Version{Number: 7, Created: time.Now()} })
				w.source.rotate("eight")
				time.Sleep(2 * time.Minute)
				w.wantState("prod", credsync.StateInSync)
				w.wantOnDisk("prod", "eight")
			})
		})
	}
}

func TestRefusedVersionIsReadOnce(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		refused := credential.Version{Number: 2, Created: time.Now()}
		asked := 0
		w.source.change(func(s *source) {
			s.version = refused
			s.err = &credential.Refusal{Version: refused, Reason: "field client_secret is empty"}
		})
		time.Sleep(40 * time.Second)
		w.wantState("prod", credsync.StateBlocked)
		_, before := w.source.counts()
		w.source.change(func(s *source) { s.err = nil }) // the real source asks need before it would refuse again
		time.Sleep(5 * time.Minute)
		w.settle()
		if _, after := w.source.counts(); after != before {
			t.Errorf("refused version read again (%d, %d)", after-before, asked)
		}
		w.wantState("prod", credsync.StateBlocked)
	})
}

func TestRollback(t *testing.T) {
	back := func(s *source) {
		s.version = credential.Version{Number: 0, Created: s.version.Created.Add(-time.Hour)}
		s.secret = newCredential("zero")
	}
	t.Run("allowed", func(t *testing.T) {
		one(t, func(w *world) { w.config.Instances[0].AllowRollback = true }, func(t *testing.T, w *world) {
			w.source.change(back)
			time.Sleep(40 * time.Second)
			w.wantOnDisk("prod", "zero")
		})
	})
	// A lower number that was created later is a secret that was deleted and written anew.
	t.Run("written anew", func(t *testing.T) {
		one(t, func(w *world) { w.source.change(func(s *source) { s.version.Number = 5 }) }, func(t *testing.T, w *world) {
			time.Sleep(time.Second)
			w.source.change(func(s *source) {
				s.version = credential.Version{Number: 1, Created: time.Now()}
				s.secret = newCredential("anew")
			})
			time.Sleep(40 * time.Second)
			w.wantOnDisk("prod", "anew")
			w.wantState("prod", credsync.StateInSync)
		})
	})
}

func TestFileOutOfOrderIsLeftAlone(t *testing.T) {
	for _, trouble := range []error{credential.ErrMissing, credential.ErrDamaged, credential.ErrBusy} {
		t.Run(trouble.Error(), func(t *testing.T) {
			one(t, nil, func(t *testing.T, w *world) {
				s := w.sinks["prod"]
				s.change(func(s *sink) { s.lookErr = trouble })
				time.Sleep(100 * time.Millisecond)
				if !errors.Is(trouble, credential.ErrBusy) { // the look has waited long enough
					w.wantState("prod", credsync.StateInSync) // an editor may be at work
				}
				time.Sleep(time.Second)
				w.wantState("prod", credsync.StateDegraded)
				w.source.rotate("two")
				time.Sleep(time.Minute)
				if s.applied() != 1 {
					t.Error("applied to a file that is out of order")
				}
				if w.told(`level=WARN msg="instance file unusable`) != 1 || w.told("level=ERROR") != 0 {
					t.Errorf("want one warning\n%s", w.log)
				}
				s.change(func(s *sink) { s.lookErr = nil })
				w.wantOnDisk("prod", "two")
				w.wantState("prod", credsync.StateInSync)
			})
		})
	}
}

// A look that takes long, and falls into an editor's save, is not yet trouble that lasts.
func TestSlowLookIntoASave(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		s := w.sinks["prod"]
		s.change(func(s *sink) { s.lookTime, s.lookErr = time.Second, credential.ErrDamaged })
		w.settle()
		s.change(func(s *sink) { s.lookTime, s.lookErr = 0, nil })
		time.Sleep(time.Minute)
		w.wantState("prod", credsync.StateInSync)
		if w.told("level=ERROR") > 0 {
			t.Errorf("an alarm\n%s", w.log)
		}
	})
}

// Applying goes on failing: what was applied before stays on disk, attempts spread out, and it is told once.
func TestFailingApplyIsRetried(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		s := w.sinks["prod"]
		s.change(func(s *sink) { s.applyErr = errors.New("nlserver exited with status 1") })
		w.source.rotate("two")
		time.Sleep(9 * time.Minute)
		w.wantState("prod", credsync.StatePending)
		w.wantOnDisk("prod", "one")
		if n := s.applied() - 1; n < 9 || n > 55 {
			t.Errorf("%d attempts in 9 minutes", n)
		}
		if n := w.told(`level=WARN msg="credential not applied`); n != 1 || w.told("level=ERROR") != 0 {
			t.Errorf("told %d times, want once\n%s", n, w.log)
		}
		s.edit("authIMSTAClientId", "half-written")
		w.wantOnDisk("prod", "one") // a failed apply must not leave damage
		w.source.change(func(s *source) { s.err = errors.New("vault is down") })
		s.change(func(s *sink) { s.applyErr = nil })
		time.Sleep(2 * time.Minute)
		w.wantOnDisk("prod", "two") // the credential in hand does not need the source again
	})
}

func TestOneReloadForInstancesAppliedTogether(t *testing.T) {
	inWorld(t, []string{"a", "b", "c"}, func(w *world) {
		w.active.steps = []string{"restart web", "restart pipelined@%"}
		w.sinks["b"].applyTime = 3 * time.Second
		w.config.Poll = 24 * time.Hour // the second poll comes at any time up to that
	}, func(t *testing.T, w *world) {
		w.wantActivated("reload", "restart web", "restart pipelined@a", "restart pipelined@b", "restart pipelined@c")
		if polls, _ := w.source.counts(); polls != 1 {
			t.Errorf("%d polls for three instances with one secret", polls)
		}
	})
}

// A step that was taken out of the configuration, as it was a mistake, is not tried any more.
func TestStepsThatAreWantedNoMoreAreForgotten(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.stop()
		w.active.steps = []string{"restart typo", "restart web"}
		w.start()
		w.active.fail(errors.New("no such module"))
		w.source.rotate("two")
		time.Sleep(time.Minute)
		w.wantState("prod", credsync.StateActivationPending)
		w.stop()
		w.active.take()
		w.active.fail(nil)
		w.active.steps = []string{"restart web"}
		w.start()
		w.settle()
		for _, step := range w.active.take() {
			if step == "restart typo" {
				t.Error("the step is tried on")
			}
		}
		w.wantState("prod", credsync.StateInSync)
	})
}

func TestFailedActivationStepsAreRetriedAndFinishedOnesNot(t *testing.T) {
	one(t, func(w *world) { w.active.steps = nil }, func(t *testing.T, w *world) {
		w.active.fail(errors.New("nlserver exited with status 1"))
		w.source.rotate("two")
		time.Sleep(40 * time.Second)
		w.wantState("prod", credsync.StateActivationPending)
		w.stop() // what is pending survives a restart
		w.active.fail(nil)
		w.active.take()
		w.start()
		w.wantActivated("reload")
		w.wantState("prod", credsync.StateInSync)
		w.stop()
		w.start()
		w.wantActivated()
	})
}

func TestActivationIsHeldForItsSchedule(t *testing.T) {
	schedule, err := cron.ParseStandard("0 3 * * *")
	if err != nil {
		t.Fatal(err)
	}
	inWorld(t, []string{"prod"}, func(w *world) { w.config.ActivateAt = schedule }, func(t *testing.T, w *world) {
		w.wantState("prod", credsync.StateActivationPending)
		w.wantOnDisk("prod", "one")
		w.wantActivated()
		time.Sleep(time.Until(schedule.Next(time.Now())) + time.Second)
		w.wantActivated("reload")
		w.wantState("prod", credsync.StateInSync)
	})
}

func TestReapplyRunsOnItsScheduleThoughInSync(t *testing.T) {
	one(t, func(w *world) { w.config.Reapply = cron.Every(time.Hour) }, func(t *testing.T, w *world) {
		time.Sleep(62 * time.Minute)
		w.wantState("prod", credsync.StateInSync)
		if got := w.sinks["prod"].applied(); got != 2 {
			t.Errorf("%d applies, want 2\n%s", got, w.log)
		}
		w.wantActivated("reload")
	})
}

// A daemon was killed while its command was writing: nobody knows what is on disk, so nothing is called drift, and the
// version is applied (again) as soon as the source answers.
func TestInterruptedApplyIsAppliedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newInterruptedWorld(t, false)
		w.source.change(func(s *source) { s.err = errors.New("vault is down") })
		w.start()
		defer func() { w.stop() }()
		w.wantOnDisk("prod", "two")
		w.wantState("prod", credsync.StatePending)
		w.source.change(func(s *source) { s.err = nil })
		time.Sleep(2 * time.Minute)
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "two")
		if got := w.sinks["prod"].applied(); got != 2 {
			t.Errorf("%d applies, want 2", got)
		}
	})
}

func TestStopWaitsForAnApplyAndRecordsIt(t *testing.T) {
	one(t, func(w *world) {}, func(t *testing.T, w *world) {
		w.sinks["prod"].change(func(s *sink) { s.applyTime = 20 * time.Second })
		w.source.rotate("two")
		time.Sleep(40 * time.Second) // polled and in the middle of the apply, or just before its end
		w.stop()
		w.wantOnDisk("prod", "two")
		w.active.take()
		w.start()
		w.wantState("prod", credsync.StateInSync)
		if got := w.sinks["prod"].applied(); got != 2 {
			t.Errorf("%d applies, want 2: the outcome was not recorded", got)
		}
	})
}

func TestCheckRetriesAtOnceWhatWaits(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.source.change(func(s *source) { s.err = errors.New("vault is down") })
		time.Sleep(10 * time.Minute)
		w.source.rotate("two")
		began := time.Now()
		err := w.daemon.Check(t.Context(), "prod")
		status := w.daemon.Status()
		if err != nil || status[0].State != credsync.StateInSync {
			t.Fatalf("%+v, %v", status, err)
		}
		if time.Since(began) != 0 {
			t.Error("waited for a retry")
		}
		w.wantOnDisk("prod", "two")
		if err := w.daemon.Check(t.Context(), "prod", "prod"); err != nil {
			t.Errorf("an instance that is named twice: %v", err)
		}
		polls, _ := w.source.counts()
		if err := w.daemon.Check(t.Context(), "prod", "nobody"); err == nil {
			t.Error("checked an instance that is not there")
		}
		w.settle()
		if now, _ := w.source.counts(); now != polls {
			t.Error("a check that is refused was begun")
		}
	})
}

func TestAnEarlierCommandIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.source.rotate("one")
		w.sinks["prod"].recoverErr = credential.ErrStillRunning
		w.start()
		defer func() { w.stop() }()
		w.wantState("prod", credsync.StateDegraded)
		if w.sinks["prod"].applied() != 0 {
			t.Error("applied beside a command that is still running")
		}
		time.Sleep(5 * time.Minute)
		w.sinks["prod"].change(func(s *sink) { s.recoverErr = nil }) // which is an event
		time.Sleep(time.Second)
		w.wantState("prod", credsync.StateInSync)
	})
}
