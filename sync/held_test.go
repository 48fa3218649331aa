package sync_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/event"
)

// byHand is a credential that somebody set before there was a daemon.
func byHand() credential.Attributes {
	return credential.Attributes{
		{Name: "authIMSTAClientId", Value: "by-hand"},
		{Name: "authIMSTAClientSecret", Value: "@by-hand"},
		{Name: "authIMSTAId", Value: "acct@techacct.adobe.com"},
	}
}

// firstStart is the first start of a daemon over such a credential.
func firstStart(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.config.HoldFirst = true
		w.sinks["prod"].attributes = byHand()
		w.source.rotate("one")
		w.start()
		test(t, w)
		w.stop()
	})
}

func (w *world) only() credsync.InstanceStatus {
	w.t.Helper()
	w.settle()
	return w.daemon.Status()[0]
}

// isHeld demands that the first apply waits, and that nothing was run.
func (w *world) isHeld() {
	w.t.Helper()
	w.wantState("prod", credsync.StateHeld)
	if in := w.only(); in.Reason != credential.ReasonFirstApply || in.AppliedVersion != 0 || w.sinks["prod"].applied() != 0 {
		w.t.Fatalf("%+v, %d applies\n%s", in, w.sinks["prod"].applied(), w.log)
	}
	w.wantActivated()
}

// TestFirstApplyIsHeld: and the credential on disk is guarded meanwhile, also over restarts, and by a splice in every mode but alert.
func TestFirstApplyIsHeld(t *testing.T) {
	for _, mode := range []credsync.RevertMode{credsync.RevertSplice, credsync.RevertApply} {
		firstStart(t, func(t *testing.T, w *world) {
			w.isHeld()
			for range 2 {
				w.stop()
				w.config.Revert = mode
				w.start()
				w.isHeld()
				w.sinks["prod"].edit("authIMSTAClientSecret", "@stolen")
				w.isHeld()
				w.driftsFor("prod", 3*time.Second, "authIMSTAClientId", "mallory")
				w.wantOnDisk("prod", "by-hand")
				w.isHeld()
			}
			if got := w.sinks["prod"].get("authIMSTAClientSecret"); got != "@by-hand" {
				t.Errorf("secret on disk is %q", got)
			}
			if n := w.told("the first apply is held"); n != 1 {
				t.Errorf("told %d times\n%s", n, w.log)
			}
		})
	}
}

func TestHeldDriftThatCannotBeSpliced(t *testing.T) {
	firstStart(t, func(t *testing.T, w *world) {
		w.isHeld()
		w.sinks["prod"].change(func(s *sink) { s.restoreErr = credential.ErrCannotSplice })
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		time.Sleep(time.Hour)
		w.wantState("prod", credsync.StateDrift)
		if in := w.only(); in.Reason != credential.ReasonDriftStuck || w.sinks["prod"].applied() > 0 {
			t.Errorf("%+v", in)
		}
	})
}

// TestHeldIsReleased: by an operator, or by a newer secret; not by the same one under another version, one that goes back, or time.
func TestHeldIsReleased(t *testing.T) {
	for name, c := range map[string]struct {
		do      func(w *world)
		applied string
	}{
		"order": {func(w *world) {
			if err := w.daemon.Check(context.Background(), "prod"); err != nil {
				w.t.Error(err)
			}
		}, "one"},
		"order for all": {func(w *world) {
			if err := w.daemon.Check(context.Background()); err != nil {
				w.t.Error(err)
			}
		}, "one"},
		"newer version":        {func(w *world) { w.source.rotate("two") }, "two"},
		"same content":         {func(w *world) { w.source.rotate("one") }, ""},
		"time, check and tick": {func(w *world) { w.daemon.CheckSoon(); time.Sleep(3 * time.Hour) }, ""},
		"goes back, which is allowed": {func(w *world) {
			w.reload(func(c *credsync.Config) { c.Instances[0].AllowRollback = true })
			w.source.change(func(s *source) {
				s.version = credential.Version{Number: 0, Created: s.version.Created.Add(-time.Hour)}
				s.secret = newCredential("zero")
			})
		}, ""},
		"reapply": {func(w *world) {
			w.reload(func(c *credsync.Config) { c.Reapply = cron.Every(time.Minute) })
			time.Sleep(time.Hour)
		}, ""},
		"newer version after a restart": {func(w *world) {
			w.stop()
			w.source.rotate("two")
			w.start()
		}, "two"},
		"another key, then a newer version": {func(w *world) {
			w.stop()
			if err := os.Remove(filepath.Join(w.dir, "digest.key")); err != nil {
				w.t.Error(err)
			}
			w.start()
			w.isHeld() // nobody can tell whether it is another content
			w.source.rotate("two")
		}, "two"},
		"order that fails, and a restart": {func(w *world) {
			w.sinks["prod"].change(func(s *sink) { s.applyErr = errors.New("exit status 1") })
			w.daemon.Check(context.Background(), "prod")
			w.stop()
			w.sinks["prod"].change(func(s *sink) { s.applyErr = nil })
			w.start()
		}, "one"},
	} {
		t.Run(name, func(t *testing.T) {
			firstStart(t, func(t *testing.T, w *world) {
				w.isHeld()
				c.do(w)
				time.Sleep(2 * time.Minute)
				if c.applied == "" {
					w.isHeld()
					w.wantOnDisk("prod", "by-hand")
					return
				}
				w.wantState("prod", credsync.StateInSync)
				w.wantOnDisk("prod", c.applied)
			})
		})
	}
}

// TestFirstApplyIsNotHeld where there is nothing that could work.
func TestFirstApplyIsNotHeld(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"incomplete": func(w *world) { w.sinks["prod"].edit("authIMSTAClientSecret", "") },
		"empty":      func(w *world) { w.sinks["prod"].attributes = nil },
		"first_apply: now": func(w *world) {
			w.config.HoldFirst = false
		},
		"by an operator": func(w *world) { w.config.Ordered = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "prod")
				w.config.HoldFirst = true
				w.sinks["prod"].attributes = byHand()
				change(w)
				w.source.rotate("one")
				w.start()
				w.wantState("prod", credsync.StateInSync)
				w.wantOnDisk("prod", "one")
				w.stop()
			})
		})
	}
}

// TestStateIsLost: a record that is gone while a version waits has the first apply held, as at a first start.
func TestStateIsLost(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.stop()
		if err := os.Remove(filepath.Join(w.dir, "prod.json")); err != nil {
			t.Fatal(err)
		}
		w.source.rotate("two")
		w.config.HoldFirst = true
		w.start()
		w.wantState("prod", credsync.StateHeld)
		w.wantOnDisk("prod", "one")
	})
}

func TestAdopt(t *testing.T) {
	for name, c := range map[string]struct {
		before func(w *world)
		fails  string
		state  credsync.State
	}{
		"held": {func(w *world) { w.sinks["prod"].edit("authIMSTAClientId", "one") }, "", credsync.StateInSync},
		"the source is down": {func(w *world) {
			w.source.change(func(s *source) { s.err = errors.New("vault is down") })
		}, "", credsync.StateDegraded},
		"another client id than the source's": {func(*world) {}, "authIMSTAClientId", credsync.StateHeld},
		"incomplete": {func(w *world) {
			w.sinks["prod"].change(func(s *sink) { s.restoreErr = errors.New("no space left on device") })
			w.sinks["prod"].edit("authIMSTAClientSecret", "")
		}, "incomplete", credsync.StateDrift},
	} {
		t.Run(name, func(t *testing.T) {
			firstStart(t, func(t *testing.T, w *world) {
				w.isHeld()
				w.pauseFor(time.Hour) // or what is set by hand is reverted
				c.before(w)
				uid := 1000
				err := w.daemon.Adopt(context.Background(), &uid, "prod")
				if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
					t.Errorf("error %v, want %q", err, c.fails)
				}
				w.resume()
				w.wantState("prod", c.state)
				if w.sinks["prod"].applied() > 0 {
					t.Error("it was applied")
				}
				w.wantActivated()
				if c.fails != "" {
					return
				}
				before := w.sinks["prod"].get("authIMSTAClientId")
				w.stop()
				w.start()
				w.wantOnDisk("prod", before)
				w.sinks["prod"].edit("authIMSTAClientId", "mallory") // it is guarded
				w.wantOnDisk("prod", before)
				w.source.rotate("one") // another version is applied, whatever it holds
				time.Sleep(2 * time.Minute)
				w.wantState("prod", credsync.StateInSync)
				w.wantOnDisk("prod", "one")
				if w.only().AppliedVersion != 2 || w.sinks["prod"].applied() != 1 {
					t.Errorf("%+v", w.only())
				}
			})
		})
	}
}

// TestBreakGlass: Vault is down and a credential has to be set by hand.
func TestBreakGlass(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.source.change(func(s *source) { s.err = errors.New("vault is down") })
		time.Sleep(time.Minute)
		w.pauseFor(time.Hour)
		w.sinks["prod"].edit("authIMSTAClientId", "new")
		w.sinks["prod"].edit("authIMSTAClientSecret", "@new")
		w.wantOnDisk("prod", "new")
		if err := w.daemon.Adopt(context.Background(), nil, "prod"); err != nil {
			t.Error(err)
		}
		w.resume()
		time.Sleep(time.Hour)
		w.wantOnDisk("prod", "new")
		w.source.change(func(s *source) { s.err = nil })
		time.Sleep(time.Hour)
		w.wantOnDisk("prod", "new") // it stands for the version that Vault has still
		w.wantState("prod", credsync.StateInSync)
		w.source.rotate("two")
		time.Sleep(time.Minute)
		w.wantOnDisk("prod", "two")
	})
}

// events collects what a daemon tells.
func (w *world) events() *[]event.Event {
	var all []event.Event
	w.config.OnEvent = func(e event.Event) { all = append(all, e) }
	return &all
}

func kinds(all []event.Event) (kinds []event.Kind) {
	for _, e := range all {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}
