package faults_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// A daemon was killed, and the one that is to settle what is left is killed at the Nth system call of its start, N = 1, 2, 3 …
// The third ends in sync all the same.
func TestKilledAtEverySystemCallOfAStart(t *testing.T) {
	t.Parallel()
	tracer := buildTracer(t)
	programs := world.Plain()
	programs.Daemon = heldDaemon(t, programs.Daemon)
	for _, left := range []struct {
		name string
		by   func(t *testing.T, s *sweep, tracer string)
		step int // of the short form
	}{
		{"a file that nlserver emptied", leaveEmptyFile, 97},
		{"an update that was displaced", leaveUpdate, 29},
	} {
		// Most of a case is waiting: in the long form some take turns, each in a world of its own.
		parts, step := 1, left.step
		if *full {
			parts, step = 8, 8
		}
		for first := 1; first <= parts; first++ {
			t.Run(fmt.Sprintf("%s, calls %d, %d and so on", left.name, first, first+step), func(t *testing.T) {
				t.Parallel()
				s := startSweep(t, programs)
				s.runsModule()
				left.by(t, s, tracer)
				s.killStarts(tracer, first, step)
			})
		}
	}
}

// killStarts kills starts, of which each finds the same, until a start has no more calls.
func (s *sweep) killStarts(tracer string, first, step int) {
	t := s.w.T
	dirs := []string{filepath.Dir(s.w.File("prod")), s.w.StateDir()}
	var before []map[string]saved
	for _, dir := range dirs {
		before = append(before, files(t, dir))
	}
	n := first
	s.interfered = 0
	for misses := 0; misses < 3 && !t.Failed(); n += step {
		for i, dir := range dirs {
			putFiles(t, dir, before[i])
		}
		at := s.killedInStart(tracer, n, func(status container.Status) bool { return status.Applied(s.version) })
		if at.N == 0 {
			misses++
		} else {
			s.w.StartDaemon()
		}
		s.settles(at)
		s.w.Holds("prod", s.secret)
		s.w.Check()
		s.w.Kill()
	}
	if s.interfered < 5 {
		t.Errorf("only %d starts were killed", s.interfered)
	}
	t.Logf("a start has less than %d system calls", n)
	s.w.StartDaemon()
}

// leaveEmptyFile leaves an apply that was killed, with nlserver, when the file was empty.
func leaveEmptyFile(_ *testing.T, s *sweep, _ string) {
	s.w.Faults(`{"modules": "watchdog", "hang_after_truncate": true}`)
	rotation.begin(s)
	s.w.WaitsAt("hang_after_truncate")
	s.w.Kill()
	s.w.EndLeftRuns()
	s.w.Faults(`{"modules": "watchdog"}`)
}

// leaveUpdate leaves a revert that was killed when it had just displaced the file, and somebody's update in what was displaced.
func leaveUpdate(_ *testing.T, s *sweep, tracer string) {
	stray := ""
	// Another thread may come between the call and its effect.
	s.w.Eventually("a daemon is killed with a copy beside the file", func() bool {
		s.trace(tracer, "-after", "renameat2") // the exchange
		revert.begin(s)
		if at := s.hits(revert, nil); at.N == 0 {
			return false
		}
		<-s.w.Running.Ended()
		s.w.Running = nil
		left, err := filepath.Glob(filepath.Join(filepath.Dir(s.w.File("prod")), ".config-prod.xml.credsync-*"))
		s.w.Must(err)
		if len(left) == 1 && revert.ready(s) { // the exchange was done, and what it displaced not removed yet
			stray = left[0]
			return true
		}
		s.w.StartDaemon()
		s.settles(call{})
		return false
	})
	update := bytes.Replace(s.w.Read("prod"), []byte("</serverconf>"), []byte("<!-- an update --></serverconf>"), 1)
	s.w.Must(os.WriteFile(stray, update, 0o640))
	s.w.Foreign["prod"] = world.ForeignBytes(update)
}

// heldDaemon is a daemon that waits, before it does anything, until somebody opens the pipe "hold" beside its configuration; where
// there is none, it just runs.
func heldDaemon(t *testing.T, daemon string) string {
	path := filepath.Join(t.TempDir(), "held-daemon")
	script := fmt.Sprintf("#!/bin/sh\nhold=${2%%/*}/hold\n[ -p \"$hold\" ] && read -r go <\"$hold\"\nexec %q \"$@\"\n", daemon)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// killedInStart starts a daemon and kills it at its nth call. The call's number is 0 when the start was over before.
func (s *sweep) killedInStart(tracer string, n int, over func(container.Status) bool) call {
	w := s.w
	w.T.Helper()
	hold := w.Path("hold")
	w.Must(unix.Mkfifo(hold, 0o600))
	d, err := w.Start(nil)
	w.Must(err)
	w.Running, w.Daemons = d, append(w.Daemons, d)
	s.trace(tracer, "-exec", "-at", fmt.Sprint(n))
	pipe, err := os.OpenFile(hold, os.O_WRONLY, 0)
	w.Must(err)
	w.Must(os.Remove(hold))
	pipe.Close()
	at := s.hits(change{name: "start", ready: func(s *sweep) bool {
		status, err := w.Asker().Status(w.Ctx)
		return err == nil && over(status)
	}}, nil)
	if at.N > 0 {
		<-d.Ended()
		w.Running = nil
	}
	return at
}

// saved is a file's content, and when it was written: an update counts for more than what was written before it.
type saved struct {
	data []byte
	at   time.Time
}

func files(t *testing.T, dir string) map[string]saved {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]saved{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = saved{data, info.ModTime()}
	}
	return all
}

// putFiles makes the files of a directory those again that were saved.
func putFiles(t *testing.T, dir string, all map[string]saved) {
	t.Helper()
	for name := range files(t, dir) {
		if _, ok := all[name]; !ok {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, f := range all {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, f.data, 0o600), os.Chtimes(path, f.at, f.at)); err != nil {
			t.Fatal(err)
		}
	}
}
