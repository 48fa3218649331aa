package sync_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

func (w *world) pauseFor(d time.Duration) {
	w.t.Helper()
	uid := 1000
	if err := w.daemon.Pause(context.Background(), state.Pause{Since: time.Now(), Until: time.Now().Add(d), Reason: "upgrade", ByUID: &uid}); err != nil {
		w.t.Error(err)
	}
}

func (w *world) resume() {
	w.t.Helper()
	if err := w.daemon.Resume(context.Background(), nil); err != nil {
		w.t.Error(err)
	}
}

// TestPause: over a rotation, drift, a restart and a reload nothing is written; at its end everything is made good, with activation.
func TestPause(t *testing.T) {
	for name, meanwhile := range map[string]func(w *world){
		"time":    func(*world) {},
		"restart": func(w *world) { w.stop(); w.start() },
		"reload":  func(w *world) { w.reload(func(*credsync.Config) {}) },
		"check":   func(w *world) { w.daemon.Check(context.Background()) },
	} {
		for _, byTime := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				one(t, nil, func(t *testing.T, w *world) {
					w.pauseFor(2 * time.Hour)
					w.sinks["prod"].edit("authIMSTAClientId", "mallory")
					time.Sleep(time.Hour)
					w.source.rotate("two")
					meanwhile(w)
					time.Sleep(30 * time.Minute)
					w.wantState("prod", credsync.StatePaused)
					w.wantOnDisk("prod", "mallory")
					w.wantActivated()
					in := w.only()
					if in.Reason != credential.ReasonPaused || in.WantedVersion != 2 || in.AppliedVersion != 1 || in.PausedUntil.IsZero() {
						t.Errorf("%+v", in)
					}
					if byTime {
						time.Sleep(31 * time.Minute)
					} else {
						w.resume()
					}
					w.wantState("prod", credsync.StateInSync)
					w.wantOnDisk("prod", "two")
					w.wantActivated("reload")
				})
			})
		}
	}
}

// TestPauseSaysWhatIsFound: the status says also under a pause that there is drift, or that the file or the source cannot be read.
func TestPauseSaysWhatIsFound(t *testing.T) {
	for says, meanwhile := range map[string]func(w *world){
		"":                       func(*world) {},
		"found meanwhile: drift": func(w *world) { w.sinks["prod"].edit("authIMSTAClientId", "mallory") },
		"(file_missing): no file": func(w *world) {
			w.sinks["prod"].change(func(s *sink) { s.lookErr = fmt.Errorf("no file: %w", credential.ErrMissing) })
		},
		"(vault_unreachable): down": func(w *world) {
			w.source.change(func(s *source) { s.err = credential.Because(credential.ReasonVaultUnreachable, errors.New("down")) })
		},
	} {
		t.Run(says, func(t *testing.T) {
			one(t, nil, func(t *testing.T, w *world) {
				w.pauseFor(time.Hour)
				meanwhile(w)
				time.Sleep(30 * time.Minute)
				w.wantState("prod", credsync.StatePaused)
				in := w.only()
				if !strings.HasPrefix(in.LastError, "paused until ") || !strings.Contains(in.LastError, says) ||
					strings.Contains(in.LastError, "meanwhile") != (says != "") {
					t.Errorf("last error %q", in.LastError)
				}
			})
		})
	}
}

// TestPauseEndsWithOldDrift: what was there during the pause may have been loaded.
func TestPauseEndsWithOldDrift(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.pauseFor(time.Hour)
		time.Sleep(30 * time.Minute)
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		time.Sleep(31 * time.Minute)
		w.wantOnDisk("prod", "one")
		w.wantActivated("reload")
	})
}

// TestPauseAfterClockIsSetBack: a pause that is read from disk lasts no longer than it was asked for.
func TestPauseAfterClockIsSetBack(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.stop()
		far := time.Now().Add(24 * 365 * time.Hour) // what was now before the clock was set back
		store, err := state.Open(w.dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := credsync.PauseRecord(store, "prod", &state.Pause{Since: far, Until: far.Add(time.Hour)}, nil, func(event.Event) {}); err != nil {
			t.Fatal(err)
		}
		store.Close()
		w.start()
		w.wantState("prod", credsync.StatePaused)
		time.Sleep(time.Hour + time.Minute)
		w.wantState("prod", credsync.StateInSync)
	})
}

// TestPauseBeginsAfterTheStepUnderWay, whose end is recorded.
func TestPauseBeginsAfterTheStepUnderWay(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.sinks["prod"].change(func(s *sink) { s.applyTime = 10 * time.Second })
		w.source.rotate("two")
		for range 600 { // until nlserver is at work
			if time.Sleep(100 * time.Millisecond); strings.Contains(w.recordOnDisk("prod"), `"applying"`) {
				break
			}
		}
		w.wantOnDisk("prod", "one")
		w.pauseFor(time.Hour)
		w.wantOnDisk("prod", "two")
		w.wantState("prod", credsync.StatePaused)
		if in := w.only(); in.AppliedVersion != 2 || in.ActivatedVersion != 1 {
			t.Errorf("%+v", in)
		}
		w.wantActivated()
		w.resume()
		w.wantActivated("reload")
	})
}

// TestOthersGoOn while one instance is paused or held.
func TestOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod", "stage", "new")
		w.config.HoldFirst = true
		w.sinks["new"].attributes = byHand()
		w.source.rotate("one")
		w.start()
		if err := w.daemon.Pause(context.Background(), state.Pause{Since: time.Now(), Until: time.Now().Add(time.Hour)}, "stage"); err != nil {
			t.Fatal(err)
		}
		w.active.take()
		w.wantState("new", credsync.StateHeld)
		w.source.rotate("two")
		time.Sleep(2 * time.Minute)
		w.wantState("prod", credsync.StateInSync)
		w.wantState("stage", credsync.StatePaused)
		w.wantOnDisk("prod", "two")
		w.wantOnDisk("stage", "one")
		w.wantOnDisk("new", "two") // a newer version than the first that was seen
		w.stop()
	})
}

// TestEvents: what happens is told, once, with what was done and never a value.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		all := w.events()
		w.source.rotate("one")
		w.start()
		w.settle()
		w.sinks["prod"].edit("authIMSTAClientSecret", "")
		w.settle()
		w.source.change(func(s *source) {
			s.version.Number++
			s.refused = &credential.Refusal{Reason: "empty", Code: credential.ReasonSecretMalformed}
		})
		time.Sleep(time.Minute)
		w.source.rotate("two")
		w.source.change(func(s *source) { s.refused = nil })
		time.Sleep(time.Minute)
		w.pauseFor(time.Hour)
		w.resume()
		w.settle()
		w.stop()
		want := []event.Kind{event.Applied, event.Activated, event.DriftReverted, event.Blocked, event.Unblocked, event.Applied, event.Activated,
			event.Paused, event.Resumed}
		if got := kinds(*all); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v\n%s", got, want, w.log)
		}
		drift, blocked, paused := (*all)[2], (*all)[3], (*all)[7]
		if len(drift.Attributes) != 1 || drift.Attributes[0] != (event.Change{Name: "authIMSTAClientSecret", Change: "emptied"}) ||
			drift.FileOwner != "neolane" || drift.FileChangedAt == nil || drift.Instance != "prod" || drift.Version != 1 {
			t.Errorf("%+v", drift)
		}
		if blocked.Reason != "secret_malformed" || blocked.State != "blocked" || paused.ByUID == nil || *paused.ByUID != 1000 || paused.State != "paused" {
			t.Errorf("%+v, %+v", blocked, paused)
		}
	})
}
