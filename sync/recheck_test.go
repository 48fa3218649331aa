package sync_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// A recheck is an alarm for what Adobe does not accept any more, and nothing else. It survives a restart, and ends when Adobe accepts it
// again, or another version is applied.
func TestRecheck(t *testing.T) {
	for _, end := range []string{"accepted again", "another version"} {
		probing(t, func(w *world) { w.config.Recheck = 24 * time.Hour }, func(t *testing.T, w *world, a *adobe) {
			_, reads := w.source.counts()
			last := time.Now()
			for range 5 {
				time.Sleep(time.Until(last.Add(21 * time.Hour)))
				w.wantAsked(a)
				time.Sleep(time.Until(last.Add(27 * time.Hour)))
				w.settle()
				_, at := a.take()
				if len(at) != 1 || at[0].Sub(last) < 21*time.Hour || at[0].Sub(last) > 27*time.Hour {
					t.Fatalf("rechecked at %v, before at %v\n%s", at, last, w.log)
				}
				last = at[0]
				w.stop()
				w.start()
			}
			if _, now := w.source.counts(); now-reads != 5 {
				t.Errorf("the secret was read %d times", now-reads)
			}
			a.change(func(a *adobe) { a.refuses["one"] = true })
			time.Sleep(30 * time.Hour)
			refused := func() {
				t.Helper()
				w.wantState("prod", credsync.StateBlocked)
				if in := w.only(); in.Reason != credential.ReasonIMSRefused || in.Proven || in.AppliedVersion != 1 {
					t.Errorf("%+v", in)
				}
				w.wantOnDisk("prod", "one")
				if n := w.sinks["prod"].applied(); n != 1 {
					t.Errorf("%d applies", n)
				}
			}
			refused()
			w.stop()
			w.start()
			refused()
			time.Sleep(30 * time.Hour)
			refused()
			if n := w.told("Adobe does not accept the applied credential any more"); n != 1 {
				t.Errorf("told %d times", n)
			}
			w.sinks["prod"].edit("authIMSTAClientId", "mallory")
			refused() // and it is guarded
			if end == "another version" {
				w.rotates("two", 3*time.Second)
			} else {
				a.change(func(a *adobe) { a.refuses["one"] = false })
				w.must(w.daemon.Ask(context.Background(), nil))
				w.check()
			}
			w.wantState("prod", credsync.StateInSync)
			if !w.only().Proven {
				t.Error("not proven")
			}
		})
	}
}

// Where Adobe gives no answer, a recheck is made again, with growing waits, and says nothing about the credential.
func TestRecheckWithoutAnAnswer(t *testing.T) {
	probing(t, func(w *world) { w.config.Recheck = 24 * time.Hour }, func(t *testing.T, w *world, a *adobe) {
		a.change(func(a *adobe) { a.err = errors.New("answers 503") })
		time.Sleep(27 * time.Hour)
		first, _ := a.take()
		time.Sleep(24 * time.Hour)
		w.wantState("prod", credsync.StateInSync)
		if more, _ := a.take(); len(first) == 0 || len(more) < 24 || len(more) > 150 {
			t.Errorf("asked %d and %d times", len(first), len(more))
		}
		if !w.only().Proven {
			t.Error("not proven any more")
		}
		if n := w.told("Adobe does not say whether it still accepts the applied credential"); n == 0 {
			t.Error("not told")
		}
		if why := w.only().RecheckFails; why != "answers 503" {
			t.Errorf("the status says %q", why)
		}
		a.change(func(a *adobe) { a.err = nil })
		time.Sleep(2 * time.Hour)
		if asked, _ := a.take(); len(asked) != 1 {
			t.Errorf("asked %d times", len(asked))
		}
		if why := w.only().RecheckFails; why != "" {
			t.Errorf("the status still says %q", why)
		}
	})
}

// Only what is applied is rechecked: not another version that the source has.
func TestRecheckOfAnotherVersion(t *testing.T) {
	probing(t, func(w *world) { w.config.Recheck = 24 * time.Hour }, func(t *testing.T, w *world, a *adobe) {
		a.change(func(a *adobe) { a.refuses["two"] = true })
		w.rotates("two", 3*time.Second)
		w.wantAsked(a, "two")
		_, reads := w.source.counts()
		time.Sleep(100 * time.Hour)
		w.wantAsked(a)
		if _, now := w.source.counts(); now != reads {
			t.Errorf("read %d times", now-reads)
		}
		w.wantState("prod", credsync.StateBlocked)
	})
}

// The time that Adobe names holds for a recheck, too, and for that of the next daemon.
func TestRecheckObeysRetryAfter(t *testing.T) {
	probing(t, func(w *world) { w.config.Recheck = time.Hour }, func(t *testing.T, w *world, a *adobe) {
		time.Sleep(50 * time.Minute)
		a.change(func(a *adobe) { a.err = laterError{time.Now().Add(30 * time.Hour)} })
		until := time.Now().Add(30 * time.Hour)
		time.Sleep(20 * time.Minute)
		w.wantAsked(a, "one")
		a.change(func(a *adobe) { a.err = nil })
		for range 4 {
			time.Sleep(6 * time.Hour)
			w.stop()
			w.start()
		}
		w.wantAsked(a)
		time.Sleep(time.Until(until.Add(30 * time.Minute)))
		if asked, at := a.take(); len(asked) != 1 || at[0].Before(until) {
			t.Errorf("asked at %v, the time named was %v", at, until)
		}
	})
}
