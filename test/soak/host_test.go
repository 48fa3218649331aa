package soak_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"campaign-credsync/test/editors"
)

// hostFaults are those of files, and of the daemon's process.
var hostFaults = []fault{
	{name: "hand edit", do: func(s *soak, random *rand.Rand) error {
		s.crowd.meddle(s.Ctx, random)
		s.nap(random, 300*time.Millisecond)
		return nil
	}},
	{name: "drift war", do: func(s *soak, random *rand.Rand) error {
		for range 20 + random.IntN(60) {
			s.crowd.meddle(s.Ctx, random)
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	}},
	{name: "file put aside and back", do: func(s *soak, random *rand.Rand) error {
		return s.away(random, s.File(instance), filepath.Join(s.Dir, "aside.xml"))
	}},
	{name: "directory renamed away and back", do: func(s *soak, random *rand.Rand) error {
		conf := filepath.Dir(s.File(instance))
		return s.away(random, conf, conf+".aside")
	}},
	{name: "file removed and written anew", do: removed},
	{name: "inotify flood", do: flood},
	{name: "many questions", do: func(s *soak, _ *rand.Rand) error {
		for range 50 {
			if _, err := s.Asker().Status(s.Ctx); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "SIGHUP", do: signalled(syscall.SIGHUP)},
	{name: "SIGUSR1", do: signalled(syscall.SIGUSR1)},
	{name: "SIGSTOP and SIGCONT", do: func(s *soak, random *rand.Rand) error {
		s.Signal(syscall.SIGSTOP)
		s.nap(random, 2*time.Second)
		s.Signal(syscall.SIGCONT)
		return nil
	}},
	{name: "SIGTERM", restarts: true, do: func(s *soak, random *rand.Rand) error {
		s.Stop()
		s.nap(random, 500*time.Millisecond)
		s.StartDaemon()
		return nil
	}},
	{name: "kill -9", restarts: true, do: killed},
	{name: "kill -9", restarts: true, do: killed},
	{name: "SIGQUIT", restarts: true, do: func(s *soak, random *rand.Rand) error {
		s.quit()
		s.StartDaemon()
		return nil
	}},
}

func signalled(signal syscall.Signal) func(*soak, *rand.Rand) error {
	return func(s *soak, random *rand.Rand) error {
		s.Signal(signal)
		s.nap(random, 300*time.Millisecond)
		return nil
	}
}

func killed(s *soak, random *rand.Rand) error {
	s.nap(random, 300*time.Millisecond) // any moment will do
	s.Kill()
	s.nap(random, 300*time.Millisecond)
	s.StartDaemon()
	return nil
}

// away renames something, and back. Editors wait meanwhile: what they write to a name that is about to be overwritten is lost
// by this test's doing.
func (s *soak) away(random *rand.Rand, path, aside string) error {
	s.crowd.turn.Lock()
	defer s.crowd.turn.Unlock()
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	s.nap(random, time.Second)
	return os.Rename(aside, path)
}

// removed removes the file, and writes it anew as it was.
func removed(s *soak, random *rand.Rand) error {
	s.crowd.turn.Lock()
	defer s.crowd.turn.Unlock()
	document, ok := s.crowd.look(s.Ctx)
	if !ok {
		return nil // nlserver is at it
	}
	if err := os.Remove(s.File(instance)); err != nil {
		return err
	}
	s.nap(random, time.Second)
	s.crowd.put(editors.Rename, document)
	return nil
}

// flood makes more events than the daemon's queue holds where that is small, and many anyway.
func flood(s *soak, _ *rand.Rand) error {
	s.crowd.turn.Lock() // the directory stays where it is
	defer s.crowd.turn.Unlock()
	one, other := filepath.Join(filepath.Dir(s.File(instance)), "flood"), filepath.Join(filepath.Dir(s.File(instance)), "flood.2")
	for range 3000 {
		if err := os.WriteFile(one, nil, 0o600); err != nil {
			return err
		}
		if err := os.Rename(one, other); err != nil {
			return err
		}
		if err := os.Remove(other); err != nil {
			return err
		}
	}
	return nil
}

// quit has the daemon tell all its goroutines, which ends it.
func (s *soak) quit() {
	s.T.Helper()
	d := s.Running
	before := len(d.Log())
	s.Signal(syscall.SIGQUIT)
	s.Ended(2)
	dump := d.Log()[before:]
	n := strings.Count(dump, "\ngoroutine ")
	if n == 0 {
		s.T.Errorf("SIGQUIT showed no goroutine: %s", fmt.Sprintf("%.200q", dump))
	}
	s.figures.goroutines = append(s.figures.goroutines, n)
}
