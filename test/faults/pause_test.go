package faults_test

import (
	"encoding/json"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// clockPause sets the clock during a pause: set back, it makes the pause no longer, also over a restart. When it ends by itself, drift is
// put right, with activation.
func clockPause(t *testing.T, clock *wallClock) {
	w, secrets := world.Started(t, container.Options{Programs: clock.programs()})
	w.Exits(0, "paused until", "pause", "--for", "1h")
	w.Blank("prod")
	paused := func() {
		t.Helper()
		w.Pass()
		w.Is("prod", "paused", "paused until")
		w.Holds("prod", "")
	}
	for _, offset := range []time.Duration{-time.Hour, -year, 0} {
		clock.move(offset)
		paused()
	}
	w.Stop()
	clock.move(-year)
	w.StartDaemon()
	paused()
	if left := pausedUntil(w).Sub(clock.now()); left < 0 || left > time.Hour {
		t.Errorf("the pause of an hour goes on for %v", left)
	}
	clock.move(-year + 50*time.Minute)
	paused()
	clock.move(-year + 61*time.Minute)
	w.Eventually("the pause ends", func() bool { return world.One(w.Pass(), "prod").State == "in_sync" })
	w.Holds("prod", secrets["prod"])
	w.Ran(1, "end", "set")
	w.Ran(2, "end", "reload")
	w.Logged("the pause is over", "its time is over")
}

func pausedUntil(w *world.World) time.Time {
	w.T.Helper()
	var status struct {
		Instances []struct {
			PausedUntil time.Time `json:"paused_until"`
		}
	}
	stdout, _, _ := w.RunCommand("status", "--json")
	w.Must(json.Unmarshal([]byte(stdout), &status))
	return status.Instances[0].PausedUntil
}
