package faults_test

import (
	"bytes"
	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
	"strings"
	"syscall"
	"testing"
)

// A war over the file ends: the brake holds over kill -9 and restart, lets new versions through, and SIGHUP lets go.
func TestDriftWarEnds(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"splice", "nlserver"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{Settings: "drift: {max_reverts: 3, revert: " + mode + "}"})
			for i := range 3 {
				w.Blank("prod")
				w.AwaitStatus("the revert", func(s container.Status) bool {
					return world.One(s, "prod").RevertedTotal == i+1 && s.Is("in_sync")
				})
			}
			sets := w.CountRuns("end", "set")
			w.Blank("prod")
			blank := w.Read("prod")
			w.Is("prod", "drift", "drift.max_reverts")
			w.Kill()
			w.StartDaemon()
			w.Is("prod", "drift")
			w.Pass()
			w.Is("prod", "drift")
			if !bytes.Equal(w.Read("prod"), blank) {
				t.Error("the file was changed after the brake")
			}
			if n := strings.Count(w.Daemons[0].Log(), "level=ERROR"); n != 1 {
				t.Errorf("%d alarms\n%s", n, w.Daemons[0].Log())
			}
			w.Ran(sets, "end", "set")

			_, secret := w.NewSecret("prod")
			w.InSync(2)
			w.Holds("prod", secret)
			w.Blank("prod")
			w.Is("prod", "drift")
			w.Signal(syscall.SIGHUP)
			w.AwaitStatus("the revert", func(s container.Status) bool { return s.Is("in_sync") && world.One(s, "prod").RevertedTotal == 4 })
			w.Holds("prod", secret)
		})
	}
}
