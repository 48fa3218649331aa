package e2e_test

import (
	"syscall"
	"testing"

	"campaign-credsync/test/container"
)

// A daemon that is killed takes the reader of nlserver's output with it. An nlserver that prints after that, and before
// it writes, must not die of it: it would leave the file as it was in the middle of its work.
func TestNlserverOutlivesItsReader(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{})
	w.faults(`{"start_delay": "1s", "times": 1}`)
	_, second := w.rotate("prod")
	before := len(w.must1(w.Runs()))
	w.signal(syscall.SIGUSR1)
	w.eventually("nlserver runs", func() bool { return len(w.must1(w.Runs())) > before })
	w.kill()
	w.eventually("nlserver comes to its end", func() bool {
		runs := w.must1(w.Runs())
		last := runs[len(runs)-1]
		return last.Event == "end" && last.Kind == "set"
	})
	w.holds("prod", second)
	w.start()
	w.pass()
	w.inSync(2)
}

func (w *world) must1(runs []container.Run, err error) []container.Run {
	w.t.Helper()
	w.must(err)
	return runs
}
