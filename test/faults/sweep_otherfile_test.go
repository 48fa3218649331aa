package faults_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// A daemon was killed while nlserver wrote, and config_file names another file since. The next daemon is killed at the Nth system call of
// its start. The third one leaves both files as they were, and has set aside, once, what was saved of the first.
func TestKilledAtEverySystemCallOfAStartWithAnotherFile(t *testing.T) {
	t.Parallel()
	tracer := buildTracer(t)
	programs := world.Plain()
	programs.Daemon = heldDaemon(t, programs.Daemon)
	s := startSweep(t, programs)
	w := s.w
	leaveEmptyFile(t, s, tracer)
	before := filepath.Join(w.StateDir(), "prod.before")
	aside := before + ".1"
	own, err := os.ReadFile(before)
	w.Must(err)
	other := w.Path("nl6", "conf", "other.xml")
	whole := append(bytes.Clone(own), "<!-- the other -->\n"...)
	w.Must(os.WriteFile(other, whole, 0o640))
	w.Conf = append(w.Conf, "other.xml")
	w.Reconfigured(func(c *container.Options) { c.Extra = map[string]string{"prod": "config_file: " + other} })
	is := map[string][]byte{other: whole, w.File("prod"): w.Read("prod"), aside: own, aside + ".path": []byte(w.File("prod"))}

	step := 23
	if *full {
		step = 1
	}
	dirs := []string{filepath.Dir(other), w.StateDir()}
	left := []map[string]saved{files(t, dirs[0]), files(t, dirs[1])}
	for n, misses := 1, 0; misses < 3 && !t.Failed(); n += step {
		for i, dir := range dirs {
			putFiles(t, dir, left[i])
		}
		at := s.killedInStart(tracer, n, func(status container.Status) bool { return world.One(status, "prod").State == "held" })
		if at.N == 0 {
			misses++
		} else {
			w.StartDaemon()
		}
		w.Is("prod", "held")
		for path, want := range is {
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: %s is not as it should be: %v\n%s\n%s", at, path, err, world.FirstDifference(want, got), w.Log())
			}
		}
		if more, _ := filepath.Glob(before + "*"); len(more) != 2 {
			t.Errorf("%v: there are %v", at, more)
		}
		w.Kill()
	}
	if s.interfered < 5 {
		t.Errorf("only %d starts were killed", s.interfered)
	}
	w.Must(errors.Join(os.WriteFile(w.File("prod"), own, 0o640), os.Remove(aside), os.Remove(aside+".path"))) // as a person would
	w.StartDaemon()
}
