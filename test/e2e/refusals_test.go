package e2e_test

import (
	"os"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// The daemon knows the configuration that it runs with. What it refuses is a failure, said in plain words, and changes nothing.
func TestDaemonRefusesAnInstanceThatItDoesNotHave(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	good, err := os.ReadFile(w.Config)
	w.Must(err)
	more := strings.Replace(string(good), "instances:\n", "instances:\n  - {name: later, path: later/oauth}\n", 1)
	if more == string(good) {
		t.Fatalf("no place for an instance in:\n%s", good)
	}
	w.Must(os.WriteFile(w.Config, []byte(more), 0o600)) // and nobody reloads
	w.Settled(w.SecretPath("prod"))                     // so that what was begun is on record
	before := w.Snapshot()
	for _, command := range []string{"pause --for 1h", "resume", "adopt", "sync"} {
		w.Exits(1, `no instance is called "later"`, append(strings.Fields(command), "--instance", "later")...)
	}
	// What is wrong by itself does not reach the daemon.
	w.Exits(2, "a pause lasts from 1m to 168h", "pause", "--for", "0")
	w.Exits(2, "a pause lasts from 1m to 168h", "pause", "--for", "1000h")
	if after := w.Snapshot(); after != before {
		t.Errorf("something was written:\n%s\nbefore\n%s", after, before)
	}
	w.Must(os.WriteFile(w.Config, good, 0o600))
	w.InSync(1)
}
