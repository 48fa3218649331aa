package faults_test

import (
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// A daemon that is killed takes the reader of nlserver's output with it. An nlserver that prints after that, and before
// it writes, must not die of it: it would leave the file as it was in the middle of its work.
func TestNlserverOutlivesItsReader(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.Faults(`{"start_delay": "10m", "times": 1}`)
	_, second := w.NewSecret("prod")
	w.Signal(syscall.SIGUSR1)
	w.WaitsAt("start_delay")
	w.Kill()
	w.Release()
	w.Eventually("nlserver comes to its end", func() bool {
		runs := allRuns(w)
		last := runs[len(runs)-1]
		return last.Event == "end" && last.Kind == "set"
	})
	w.Holds("prod", second)
	w.StartDaemon()
	w.Pass()
	w.InSync(2)
}

func allRuns(w *world.World) []container.Run {
	w.T.Helper()
	runs, err := w.Runs()
	w.Must(err)
	return runs
}
