package soak_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// patience bounds the wait for a daemon that heals by itself: its retries are up to a minute apart, and several may be needed.
const patience = 5 * time.Minute

// quietPoint is when the faults are over and the editors wait. The daemon comes in sync by itself; then everything is asked
// that can be asked of a daemon that runs.
func (s *soak) quietPoint() {
	s.T.Helper()
	s.crowd.turn.Lock()
	defer s.crowd.turn.Unlock()
	s.heal()
	s.figures.quiet++
	s.noneLost()
	s.nothingLeft()
	s.nothingShows()
	s.Proxy.Requests() // or they would be kept
	s.figures.measure(s)
}

// heal waits until the newest good version is applied, activated and on disk. A brake that engaged is let go as a person does it, a
// restart that hangs is ended, and one that failed three times is asked for again.
func (s *soak) heal() {
	s.T.Helper()
	var status container.Status
	began, braked, helped := time.Now(), false, time.Time{}
	for ; time.Since(began) < patience && s.Ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		status, _ = s.Asker().Status(s.Ctx)
		in := world.One(status, instance)
		if in.State == "drift" && strings.Contains(in.LastError, "drift.max_reverts") && !braked {
			braked = true
			s.figures.brakes++
			s.Signal(syscall.SIGHUP)
		}
		hangs := strings.Contains(in.LastError, "has not ended yet")
		if in.State == "activation_pending" && (hangs || strings.Contains(in.LastError, "3 times in a row")) && time.Since(helped) > 3*time.Second {
			helped = time.Now()
			if hangs {
				s.EndLeftRuns()
			}
			s.Signal(syscall.SIGHUP)
		}
		if in.State != "in_sync" || in.AppliedVersion != s.version {
			continue
		}
		if got, err := s.SecretOnDisk(s.Ctx, instance); err != nil || got != s.secret || !s.idsRight() {
			continue
		}
		s.figures.heal = max(s.figures.heal, time.Since(began))
		s.figures.reverts = in.RevertedTotal
		return
	}
	s.T.Fatalf("not in sync with version %d %v after the last fault: %+v; on disk %s\n%s", s.version, patience, status, s.onDisk(), tail(s.Log()))
}

// onDisk tells what the file holds, by the number of the secret among all that there were.
func (s *soak) onDisk() string {
	secret, err := s.SecretOnDisk(s.Ctx, instance)
	return fmt.Sprintf("is secret %d of %d (%v), the ids are right: %v", slices.Index(s.Secrets, secret)+1, len(s.Secrets), err, s.idsRight())
}

func (s *soak) idsRight() bool {
	want := container.Credential("")
	return s.Attribute(instance, "authIMSTAClientId") == want["client_id"] && s.Attribute(instance, "authIMSTAId") == want["technical_account_id"]
}

// noneLost demands that every update of the editors is there, and every other foreign byte. Excused is what was lost while
// nlserver was at the file, which it reads and rewrites as a whole, and what one of its faults took with it.
func (s *soak) noneLost() {
	s.T.Helper()
	document, ok := s.crowd.look(s.Ctx)
	if !ok {
		s.T.Fatalf("the file is not whole\n%s", tail(s.Log()))
	}
	s.Foreign[instance] = world.ForeignBytes(document)
	runs, err := nlserverWindows(s.World)
	s.Must(err)
	lost, excused := s.crowd.take(append(runs, s.excused...))
	for _, l := range lost {
		s.T.Errorf("lost between %v and %v: %s\nexcused would be %v\n%s", l.from, l.to, l.what, s.excused, tail(s.Log()))
	}
	s.Must(s.crowd.wrong)
	s.figures.edits = s.crowd.edits
	s.figures.excused += len(excused)
	s.figures.runs, s.figures.runTime = len(runs), sum(runs)
	s.figures.damages, s.figures.damageTime = len(s.excused), sum(s.excused)
}

// nlserverWindows are the times in which nlserver set a credential, those of runs that came to their end.
func nlserverWindows(w *world.World) ([]window, error) {
	runs, err := w.Runs()
	var all []window
	for _, r := range runs {
		if r.Event == "end" && r.Kind == "set" {
			all = append(all, window{r.Time.Add(-time.Duration(r.DurationUS)*time.Microsecond - time.Millisecond), r.Time})
		}
	}
	return all, err
}

func sum(all []window) (t time.Duration) {
	for _, w := range all {
		t += w.to.Sub(w.from)
	}
	return t
}

var ownFiles = regexp.MustCompile(`^(lock|digest\.key|(?:refused|accepted)-secret-id\.json|prod\.json|prod\.nlserver\.lock|(?:web|pipelined@prod)\.restart|history\.jsonl(?:\.1)?)$`)

// nothingLeft demands that only what belongs there is in conf/ and in the state directory.
func (s *soak) nothingLeft() {
	s.T.Helper()
	stray := ""
	s.Eventually("nothing is left in conf/ and the state directory", func() bool {
		stray = ""
		for _, e := range s.list(filepath.Dir(s.File(instance))) {
			if e.Name() != "config-default.xml" && e.Name() != filepath.Base(s.File(instance)) {
				stray = "conf/" + e.Name()
			}
		}
		for _, e := range s.list(s.StateDir()) {
			if !ownFiles.MatchString(e.Name()) {
				stray = "state/" + e.Name()
			}
		}
		return stray == ""
	})
}

func (s *soak) list(dir string) []os.DirEntry {
	s.T.Helper()
	entries, err := os.ReadDir(dir)
	s.Must(err)
	return entries
}

// nothingShows looks for secrets by what all of them begin with, and for Vault's tokens, in what was printed since the last
// time, what the daemon keeps and what it answers. The end looks for each secret, in every encoding, everywhere.
func (s *soak) nothingShows() {
	s.T.Helper()
	secret := regexp.MustCompile(`p8e-[A-Za-z0-9]{8}|hv[sbr]\.[A-Za-z0-9_-]{20,}`)
	status, err := s.Asker().Status(s.Ctx)
	s.Must(err)
	places := map[string]string{"the status": fmt.Sprintf("%+v", status), "the file": string(s.Read(instance))}
	for i, d := range s.Daemons {
		log := d.Log()
		places[fmt.Sprintf("the log of daemon %d", i)] = log[max(0, s.seen[d]-100):]
		s.figures.logged(log[s.seen[d]:])
		s.seen[d] = len(log)
	}
	for _, e := range s.list(s.StateDir()) {
		if text, err := os.ReadFile(filepath.Join(s.StateDir(), e.Name())); err == nil {
			places["state/"+e.Name()] = string(text)
		}
	}
	for place, text := range places {
		if at := secret.FindStringIndex(text); at != nil {
			s.T.Errorf("a secret shows in %s: …%s", place, text[max(0, at[0]-200):at[0]])
		}
	}
}

// idle demands that a daemon which is in sync does and says nothing.
func (s *soak) idle(long time.Duration) {
	s.T.Helper()
	s.quietPoint()
	s.Pass() // which is over when the last revert is on record, too
	before, log := s.Snapshot(), s.Log()
	select {
	case <-time.After(long): // that nothing happens cannot be awaited
	case <-s.Ctx.Done():
	}
	if after := s.Snapshot(); after != before {
		s.T.Errorf("idle, and yet files changed:\n%s\nwas\n%s", after, before)
	}
	if more := s.Log()[len(log):]; more != "" {
		s.T.Errorf("idle, and yet it says:\n%s", more)
	}
}

// ending compares the goroutines of the daemon with those of a fresh one, and judges the figures.
func (s *soak) ending() {
	s.T.Helper()
	s.quit()
	s.StartDaemon()
	s.crowd.turn.Lock()
	s.heal()
	s.crowd.turn.Unlock()
	s.quit()
	s.figures.judge(s)
}

func tail(log string) string { return log[max(0, len(log)-6000):] }
