package e2e_test

import (
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// In sync and idle: one light read a poll, and nothing is written anywhere, also while Prometheus scrapes and somebody looks.
func TestIdleIsQuiet(t *testing.T) {
	t.Parallel()
	listen := freeAddress(t)
	w, _ := world.Started(t, container.Options{Settings: "log: {level: info, format: text}\nlisten: " + listen})
	w.Settled(w.SecretPath("prod"))
	log, before := w.Log(), w.Snapshot()
	w.Idle(w.SecretPath("prod"))
	for _, path := range []string{"/metrics", "/", "/readyz", "/healthz"} {
		if status, body := get(w, "http://"+listen+path, ""); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if after := w.Snapshot(); after != before {
		t.Errorf("files changed:\n%s\nthey were\n%s", after, before)
	}
	if now := w.Log(); now != log {
		t.Errorf("the log goes on: %s", now[len(log):])
	}
}
