package sync_test

import (
	"context"
	"errors"
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

// The time that Adobe names outlives the daemon, and holds for another version, too. A version waits for no longer than patience; an
// operator has Adobe asked at once.
func TestRetryAfterOutlivesTheDaemon(t *testing.T) {
	throttled := func(w *world, a *adobe, after time.Duration) (until time.Time) {
		until = time.Now().Add(after)
		a.change(func(a *adobe) { a.err = laterError{until} })
		w.rotates("two", 3*time.Second)
		w.wantAsked(a, "two")
		for range 3 { // a crash loop
			w.stop()
			w.launch()
			time.Sleep(5 * time.Second)
		}
		w.wantAsked(a)
		w.wantState("prod", credsync.StatePending)
		if in := w.only(); in.Reason != credential.ReasonProbeWaits || !strings.Contains(in.LastError, "does not want to be asked before") {
			t.Errorf("%+v", in)
		}
		a.change(func(a *adobe) { a.err = nil })
		return until
	}
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		until := throttled(w, a, 40*time.Second)
		time.Sleep(time.Until(until.Add(5 * time.Second)))
		w.wantState("prod", credsync.StateInSync)
		if asked, at := a.take(); !slices.Equal(asked, []string{"two"}) || at[0].Before(until) || !w.only().Proven {
			t.Errorf("asked about %q at %v, the time named was %v", asked, at, until)
		}
	})
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		throttled(w, a, 50*time.Minute)
		time.Sleep(time.Minute)
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "two")
		w.rotates("three", time.Minute+3*time.Second)
		w.wantOnDisk("prod", "three")
		w.wantAsked(a)
		time.Sleep(50 * time.Minute)
		w.rotates("four", 3*time.Second)
		w.wantOnDisk("prod", "four")
		w.wantAsked(a, "four")
	})
	for name, order := range map[string]func(w *world){
		"sync":    func(w *world) { w.must(w.daemon.Ask(context.Background(), nil)); w.check() },
		"SIGUSR1": func(w *world) { w.daemon.AskAdobeAgain(); w.daemon.CheckSoon(); time.Sleep(3 * time.Second) },
		"SIGHUP":  func(w *world) { w.reload(func(*credsync.Config) {}); time.Sleep(3 * time.Second) },
		"sync without a daemon": func(w *world) {
			w.stop()
			w.config.Ordered = true
			w.askFirst = true
			w.launch()
			time.Sleep(3 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			probing(t, nil, func(t *testing.T, w *world, a *adobe) {
				throttled(w, a, 50*time.Minute)
				order(w)
				w.wantAsked(a, "two")
				w.wantState("prod", credsync.StateInSync)
			})
		})
	}
}

// Nobody is believed who wants to be asked in ten years, and no clock that was set by years.
func TestRetryAfterOfYears(t *testing.T) {
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		a.change(func(a *adobe) { a.err = laterError{time.Now().AddDate(10, 0, 0)} })
		w.rotates("two", 2*time.Minute)
		w.wantAsked(a, "two")
		a.change(func(a *adobe) { a.err = nil })
		time.Sleep(49 * time.Hour)
		w.rotates("three", 3*time.Second)
		w.wantAsked(a, "three")
		w.stop()
		store, err := state.Open(w.dir, 0)
		w.must(err)
		record, err := store.Load("prod")
		w.must(err)
		record.ProbeNotBefore = time.Now().AddDate(10, 0, 0)
		w.must(store.Save("prod", record))
		store.Close()
		w.start()
		w.rotates("four", 3*time.Second)
		w.wantAsked(a, "four")
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

// The time before which Adobe does not want to be asked about a secret is that of all instances that share it, until an operator says so.
func TestThrottleOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := newWorld(t, "a", "b", "c"), &adobe{takes: time.Second}
		w.config.Prober, w.config.Patience = a, time.Hour
		w.source.rotate("one")
		w.start()
		w.wantAsked(a, "one")
		a.change(func(a *adobe) { a.err = laterError{time.Now().Add(30 * time.Minute)} })
		w.rotates("two", 10*time.Minute)
		w.wantAsked(a, "two")
		a.change(func(a *adobe) { a.err = nil })
		w.must(w.daemon.Ask(context.Background(), nil, "b"))
		w.check()
		w.wantAsked(a, "two")
		for _, name := range []string{"a", "b", "c"} {
			w.wantOnDisk(name, "two")
		}
		w.stop()
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
