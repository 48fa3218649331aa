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

// Nobody is asked while an instance is held or paused, by adopt, nor about what is applied already: by a schedule, in a drift that
// nlserver reverts, under another number.
func TestProbeIsNotMade(t *testing.T) {
	t.Run("held", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, a := newWorld(t, "prod"), &adobe{}
			w.config.Prober, w.config.Patience, w.config.Recheck, w.config.HoldFirst = a, time.Minute, time.Hour, true
			w.sinks["prod"].attributes = byHand()
			w.source.rotate("by-hand")
			w.start()
			time.Sleep(10 * time.Hour)
			w.isHeld()
			w.wantAsked(a)
			w.must(w.daemon.Adopt(context.Background(), nil))
			time.Sleep(10 * time.Hour)
			w.wantState("prod", credsync.StateInSync)
			w.wantAsked(a) // Vault's may be another than what was adopted
			if w.only().Proven {
				t.Error("proven")
			}
			w.rotates("two", 3*time.Second)
			w.wantState("prod", credsync.StateInSync)
			w.wantAsked(a, "two")
			w.stop()
		})
	})
	t.Run("paused", func(t *testing.T) {
		probing(t, func(w *world) { w.config.Recheck = time.Hour }, func(t *testing.T, w *world, a *adobe) {
			a.change(func(a *adobe) { a.err = errors.New("answers 500") })
			w.rotates("two", 20*time.Second)
			w.pauseFor(20 * time.Hour)
			a.take()
			time.Sleep(10 * time.Hour)
			w.daemon.AskAdobeAgain()
			time.Sleep(9 * time.Hour)
			w.wantAsked(a)
			a.change(func(a *adobe) { a.err = nil })
			w.resume()
			time.Sleep(time.Second)
			w.wantState("prod", credsync.StateInSync)
			w.wantAsked(a, "two")
			if !w.only().Proven {
				t.Error("the pause counted as patience")
			}
		})
	})
	t.Run("applied", func(t *testing.T) {
		probing(t, func(w *world) { w.config.Revert = credsync.RevertApply }, func(t *testing.T, w *world, a *adobe) {
			w.rotates("one", 3*time.Second)
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			time.Sleep(time.Minute)
			w.wantOnDisk("prod", "one")
			w.reload(func(c *credsync.Config) { c.Reapply = every(t, "1h") })
			time.Sleep(3 * time.Hour)
			if n := w.sinks["prod"].applied(); n < 4 {
				t.Errorf("%d applies\n%s", n, w.log)
			}
			w.wantAsked(a)
			if !w.only().Proven {
				t.Error("not proven any more")
			}
		})
	})
}

// A JWT credential cannot be asked about.
func TestProbeOfAPrivateKey(t *testing.T) {
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		w.source.rotate("two")
		w.source.change(func(s *source) { s.secret.PrivateKey = credential.NewSecret("-----BEGIN PRIVATE KEY-----") })
		w.daemon.Announced(0)
		time.Sleep(3 * time.Second)
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "two")
		w.wantAsked(a)
		if w.only().Proven || w.told("the new version is applied without being proven") != 1 {
			t.Errorf("%+v\n%s", w.only(), w.log)
		}
		w.must(w.daemon.Ask(context.Background(), nil))
		w.check()
		time.Sleep(48 * time.Hour)
		w.wantAsked(a)
	})
}
