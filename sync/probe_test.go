package sync_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	stdsync "sync"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/event"
)

// adobe is what is asked: it knows which client ids it refuses, or gives no answer.
type adobe struct {
	mu      stdsync.Mutex
	refuses map[string]bool
	err     error
	takes   time.Duration
	asked   []string // client ids, and when
	at      []time.Time
}

func (a *adobe) Probe(ctx context.Context, c credential.Credential) error {
	a.mu.Lock()
	a.asked, a.at = append(a.asked, c.ClientID), append(a.at, time.Now())
	err, refuses, takes := a.err, a.refuses[c.ClientID], a.takes
	a.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case err != nil:
		return err
	case refuses:
		return &credential.Refusal{Code: credential.ReasonIMSRefused, Reason: "Adobe refuses the credential"}
	}
	return nil
}

func (a *adobe) change(f func(a *adobe)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

// take returns who was asked about since it was called last, and when.
func (a *adobe) take() (asked []string, at []time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked, at = a.asked, a.at
	a.asked, a.at = nil, nil
	return asked, at
}

type laterError struct{ at time.Time }

func (laterError) Error() string        { return "too many requests" }
func (e laterError) RetryAt() time.Time { return e.at }

// probing is a world in which version 1 was accepted and is in sync.
func probing(t *testing.T, change func(*world), test func(t *testing.T, w *world, a *adobe)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, a := newWorld(t, "prod"), &adobe{refuses: map[string]bool{}, takes: 100 * time.Millisecond}
		w.config.Prober, w.config.Patience = a, time.Minute
		if change != nil {
			change(w)
		}
		w.source.rotate("one")
		w.start()
		w.wantState("prod", credsync.StateInSync)
		if in := w.only(); !in.Proven {
			t.Errorf("not proven: %+v", in)
		}
		w.wantAsked(a, "one")
		w.wantActivated("reload")
		test(t, w, a)
		w.stop()
	})
}

func (w *world) wantAsked(a *adobe, want ...string) {
	w.t.Helper()
	w.settle()
	if got, _ := a.take(); !slices.Equal(got, want) {
		w.t.Fatalf("Adobe was asked about %q, want %q\n%s", got, want, w.log)
	}
}

// rotates has a new version come, and gives it time.
func (w *world) rotates(clientID string, wait time.Duration) {
	w.t.Helper()
	w.source.rotate(clientID)
	w.daemon.Announced(0)
	time.Sleep(wait)
	w.settle()
}

// An answer that says nothing is waited for while patience lasts, with Adobe asked again and again; then the version is applied, and not
// called proven. Drift is reverted meanwhile.
func TestProbeWithoutAnAnswer(t *testing.T) {
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		a.change(func(a *adobe) { a.err = errors.New("answers 500") })
		var told []event.Kind
		w.reload(func(c *credsync.Config) { c.OnEvent = func(e event.Event) { told = append(told, e.Kind) } })
		w.rotates("two", 30*time.Second)
		w.wantState("prod", credsync.StatePending)
		if in := w.only(); in.Reason != credential.ReasonProbeWaits || in.AppliedVersion != 1 || in.LastError != "answers 500" || in.NextRetryAt.IsZero() || !in.Proven {
			t.Errorf("%+v", in)
		}
		writes := w.sinks["prod"].applied()
		w.sinks["prod"].edit("authIMSTAClientId", "mallory")
		w.wantOnDisk("prod", "one")
		if w.sinks["prod"].applied() != writes {
			t.Error("nlserver was run")
		}
		time.Sleep(34 * time.Second)
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "two")
		if in := w.only(); in.Proven || in.AppliedVersion != 2 {
			t.Errorf("%+v", in)
		}
		if asked, _ := a.take(); len(asked) < 3 || len(asked) > 60 {
			t.Errorf("asked %d times", len(asked))
		}
		if w.told("the new version is applied without being proven") != 1 || !slices.Contains(told, event.Unproven) {
			t.Errorf("told %v\n%s", told, w.log)
		}
		time.Sleep(time.Hour)
		w.wantAsked(a) // nobody asks about what is applied

		// An operator's word has it asked again, and what it accepts then is proven.
		a.change(func(a *adobe) { a.err = nil })
		w.must(w.daemon.Ask(context.Background(), nil))
		w.check()
		w.wantAsked(a, "two")
		if !w.only().Proven {
			t.Error("not proven")
		}
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) check() {
	w.t.Helper()
	w.must(w.daemon.Check(context.Background()))
}

// Adobe is not asked before the time that it names. One beyond patience ends the waiting without another question.
func TestProbeObeysRetryAfter(t *testing.T) {
	for after, asked := range map[time.Duration]int{40 * time.Second: 2, 50 * time.Minute: 1} {
		probing(t, nil, func(t *testing.T, w *world, a *adobe) {
			a.change(func(a *adobe) { a.err = laterError{time.Now().Add(after)} })
			named := time.Now().Add(after)
			w.rotates("two", 65*time.Second)
			w.wantState("prod", credsync.StateInSync)
			got, at := a.take()
			if len(got) < asked || asked == 1 && len(got) > 1 || asked > 1 && at[1].Before(named) {
				t.Errorf("after %v: asked at %v, the time named was %v", after, at, named)
			}
		})
	}
}

// What Adobe refuses is asked about once, and read once, until an operator says so, or another version comes.
func TestProbeRefused(t *testing.T) {
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		a.change(func(a *adobe) { a.refuses["two"], a.refuses["three"] = true, true })
		w.rotates("two", 3*time.Second)
		refused := func(version int) {
			t.Helper()
			w.wantState("prod", credsync.StateBlocked)
			if in := w.only(); in.Reason != credential.ReasonIMSRefused || in.AppliedVersion != 1 || in.WantedVersion != version || !in.Proven ||
				!strings.Contains(in.LastError, "Adobe refuses the credential") {
				t.Errorf("%+v", in)
			}
			w.wantOnDisk("prod", "one")
		}
		refused(2)
		w.wantAsked(a, "two")
		_, reads := w.source.counts()
		time.Sleep(time.Hour)
		w.stop()
		w.start()
		time.Sleep(time.Hour)
		refused(2)
		w.daemon.CheckSoon() // which is no operator's word
		time.Sleep(time.Hour)
		if _, now := w.source.counts(); now != reads {
			t.Errorf("the secret was read %d times more", now-reads)
		}
		w.wantAsked(a)
		for name, again := range map[string]func(){
			"sync":    func() { w.must(w.daemon.Ask(context.Background(), nil)); w.check() },
			"SIGUSR1": func() { w.daemon.AskAdobeAgain(); w.daemon.CheckSoon(); time.Sleep(3 * time.Second) },
			"SIGHUP":  func() { w.reload(func(*credsync.Config) {}); time.Sleep(3 * time.Second) },
		} {
			again()
			refused(2)
			t.Log(name)
			w.wantAsked(a, "two")
		}
		w.rotates("three", 3*time.Second)
		refused(3)
		w.wantAsked(a, "three")
		w.rotates("four", 3*time.Second)
		w.wantState("prod", credsync.StateInSync)
		w.wantAsked(a, "four")
		if n := w.told("secret accepted again"); n != 1 {
			t.Errorf("told %d times\n%s", n, w.log)
		}
	})
}

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

// What was accepted is not asked about again, though its apply fails and the daemon is restarted.
func TestProbeBeforeAnApplyThatFails(t *testing.T) {
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		w.sinks["prod"].change(func(s *sink) { s.applyErr = errors.New("no license") })
		w.rotates("two", 10*time.Minute)
		w.wantState("prod", credsync.StatePending)
		if in := w.only(); !in.Proven || in.Reason != credential.ReasonApplyFailed {
			t.Errorf("%+v", in)
		}
		w.stop()
		w.start()
		w.daemon.CheckSoon()
		time.Sleep(10 * time.Minute)
		w.sinks["prod"].change(func(s *sink) { s.applyErr = nil })
		time.Sleep(time.Minute)
		w.wantState("prod", credsync.StateInSync)
		w.wantAsked(a, "two")
		if !w.only().Proven {
			t.Error("not proven")
		}
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

// Instances that share a secret share its answer; a fleet spreads its questions.
func TestProbesOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a", "b", "c"}
		w, a := newWorld(t, names...), &adobe{refuses: map[string]bool{"two": true}, takes: time.Second}
		w.config.Prober, w.config.Patience = a, time.Minute
		w.source.rotate("one")
		w.start()
		w.settle()
		asked, _ := a.take()
		if !slices.Equal(asked, []string{"one"}) {
			t.Errorf("asked about %q\n%s", asked, w.log)
		}
		w.rotates("two", 10*time.Second)
		for _, name := range names {
			w.wantOnDisk(name, "one")
			w.wantState(name, credsync.StateBlocked)
		}
		w.wantAsked(a, "two")
		w.must(w.daemon.Ask(context.Background(), nil, "b"))
		w.check()
		w.wantAsked(a, "two")
		w.stop()
	})
	seconds := map[int64]int{}
	for range 40 {
		probing(t, nil, func(t *testing.T, w *world, a *adobe) {
			came := time.Now()
			w.rotates("two", 3*time.Second)
			_, at := a.take()
			seconds[int64(at[0].Sub(came)/(500*time.Millisecond))]++
		})
	}
	if len(seconds) != 4 || seconds[0] > 30 {
		t.Errorf("first questions by half seconds after the version: %v", seconds)
	}
}

// One node of a cluster is behind, and answers in turn with an older version: what Adobe refuses is not asked about with each change.
func TestRefusedVersionsThatWaver(t *testing.T) {
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		a.change(func(a *adobe) { a.refuses["two"], a.refuses["three"] = true, true })
		var versions []credential.Version
		for _, client := range []string{"two", "three"} {
			w.rotates(client, 3*time.Second)
			w.source.change(func(s *source) { versions = append(versions, s.version) })
		}
		w.wantAsked(a, "two", "three")
		for i := range 20 {
			w.source.change(func(s *source) { s.version, s.secret = versions[i%2], newCredential([]string{"two", "three"}[i%2]) })
			w.daemon.Announced(0)
			time.Sleep(5 * time.Second)
		}
		w.wantAsked(a)
		w.wantState("prod", credsync.StateBlocked)
		w.wantOnDisk("prod", "one")
	})
}

// A question that hangs holds up neither a stop nor a reload, and a newer version does not wait for it.
func TestProbeThatHangs(t *testing.T) {
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		a.change(func(a *adobe) { a.takes = 20 * time.Second })
		w.rotates("two", 3*time.Second)
		began := time.Now()
		w.rotates("three", 3*time.Second)
		w.wantAsked(a, "two", "three")
		w.reload(func(*credsync.Config) {})
		time.Sleep(3 * time.Second)
		w.stop()
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("took %v", took)
		}
		a.change(func(a *adobe) { a.takes = 0 })
		a.take()
		w.start()
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "three")
		w.wantAsked(a, "three")
	})
}

func every(t *testing.T, interval string) cron.Schedule {
	t.Helper()
	schedule, err := cron.ParseStandard("@every " + interval)
	if err != nil {
		t.Fatal(err)
	}
	return schedule
}
