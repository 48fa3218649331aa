package sync_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

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

// The credential that Adobe has refused stays refused under another version while Adobe says nothing, and is asked about again.
func TestRefusedCredentialUnderAnotherVersion(t *testing.T) {
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		a.change(func(a *adobe) { a.refuses["two"] = true })
		w.rotates("two", 3*time.Second)
		a.change(func(a *adobe) { a.err = errors.New("answers 503") })
		w.rotates("two", 3*time.Minute)
		w.wantState("prod", credsync.StateBlocked)
		w.wantOnDisk("prod", "one")
		if in := w.only(); in.Reason != credential.ReasonIMSRefused || in.WantedVersion != 3 {
			t.Errorf("%+v", in)
		}
		a.change(func(a *adobe) { a.refuses["two"], a.err = false, nil })
		w.rotates("two", 3*time.Second)
		w.wantOnDisk("prod", "two")
	})
}
