package e2e_test

import (
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// In sync and idle: one light read a poll, and nothing is written anywhere.
func TestIdleIsQuiet(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Settings: "log: {level: info, format: text}"})
	w.Settled(w.SecretPath("prod"))
	log, before := w.Log(), w.Snapshot()
	w.Idle(w.SecretPath("prod"))
	if after := w.Snapshot(); after != before {
		t.Errorf("files changed:\n%s\nthey were\n%s", after, before)
	}
	if now := w.Log(); now != log {
		t.Errorf("the log goes on: %s", now[len(log):])
	}
}
