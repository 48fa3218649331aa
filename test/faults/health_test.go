package faults_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// listening is a world whose daemon listens at a socket.
func listening(t *testing.T, options container.Options) *world.World {
	w := world.New(t, options)
	w.Reconfigured(func(o *container.Options) { o.Settings += "\nlisten: unix:" + w.Path("http.sock") })
	return w
}

// get asks there. Without an answer in limit the status is 0.
func get(w *world.World, path string, limit time.Duration) (status int, body string) {
	w.T.Helper()
	client := http.Client{Timeout: limit, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.Path("http.sock"))
		},
		DisableKeepAlives: true,
	}}
	answer, err := client.Get("http://daemon" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	w.Must(err)
	w.Printed.Write(text)
	return answer.StatusCode, string(text)
}

// probes waits until both questions are answered so.
func probes(w *world.World, health, ready int, says string) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("/healthz is %d, /readyz is %d and says %q", health, ready, says), func() bool {
		h, _ := get(w, "/healthz", world.Patience)
		r, body := get(w, "/readyz", world.Patience)
		return h == health && r == ready && body == says+"\n"
	})
}

// The daemon is ready unless an instance needs a person, and healthy in any case.
func TestReadiness(t *testing.T) {
	t.Parallel()
	w := listening(t, container.Options{Settings: "drift: {revert: alert}"})
	w.SetByHand("p8e-SetByHandSetByHandSetByHandSetBy")
	w.NewSecret("prod")
	w.StartDaemon()
	w.Is("prod", "held")
	probes(w, 200, 200, "ok")
	w.Exits(0, "", "sync")
	w.InSync(1)
	probes(w, 200, 200, "ok")

	w.WriteSecret("prod", map[string]any{"client_id": "x"})
	probes(w, 200, 503, "prod: blocked (secret_malformed)")
	w.NewSecret("prod")
	w.InSync(3)
	probes(w, 200, 200, "ok")
	right := w.Read("prod")
	w.Blank("prod")
	probes(w, 200, 503, "prod: drift (drift_alert)")
	w.Must(os.WriteFile(w.File("prod"), right, 0o640))
	w.InSync(3)
	w.Must(os.Rename(w.File("prod"), w.Path("away")))
	probes(w, 200, 503, "prod: degraded (file_missing)")
	w.Must(os.Rename(w.Path("away"), w.File("prod")))
	w.InSync(3)
	probes(w, 200, 200, "ok")
	w.Proxy.Down()
	probes(w, 200, 503, "prod: degraded (vault_unreachable)")
}

// A frozen disk holds a step, and not the loop: the daemon is healthy, and not ready.
func TestHealthOnAFrozenDisk(t *testing.T) {
	t.Parallel()
	w := listening(t, container.Options{})
	freeze, thaw := w.Freezes(w.Path("nl6", "conf"))
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	probes(w, 200, 200, "ok")
	w.Signal(syscall.SIGSTOP)
	w.Blank("prod")
	freeze()
	w.Signal(syscall.SIGCONT)
	probes(w, 200, 503, "prod: degraded (stuck)")
	thaw()
	probes(w, 200, 200, "ok")
	w.InSync(1)
}

// A loop that makes no progress is said to do so: its thread is held in a call that it makes while it decides.
func TestHealthOfALoopThatHangs(t *testing.T) {
	t.Parallel()
	tracer := buildTracer(t)
	programs := world.Plain()
	// With one processor, that thread would hold it, and nothing would answer.
	two := filepath.Join(t.TempDir(), "campaign-credsync")
	if err := os.WriteFile(two, []byte("#!/bin/sh\nGOMAXPROCS=2 exec "+programs.Daemon+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	programs.Daemon = two
	w := listening(t, container.Options{Programs: programs})
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Happened("activated")
	probes(w, 200, 200, "ok")
	for answered := false; !answered && w.Ctx.Err() == nil; {
		before := revertsInHistory(w)
		tracing := trace(w, tracer, "-first", "uname", "-pause") // of the event
		w.Blank("prod")
		w.Eventually("the loop is held", func() bool { return len(tracing.hit) > 0 })
		health, _ := get(w, "/healthz", 20*time.Second)
		ready, _ := get(w, "/readyz", 20*time.Second)
		_, says, status := w.RunCommand("status")
		// A garbage collection would wait for that thread, too, and all others for that: then nothing answers, and it is done anew.
		answered = health != 0 && ready != 0 && !strings.Contains(says, "the daemon does not answer")
		if answered && (health != 503 || ready != 503 || status != 1 || !strings.Contains(says, "the daemon hangs")) {
			t.Errorf("/healthz is %d, /readyz is %d, want 503; status ends with %d: %s", health, ready, status, says)
		}
		tracing.leave()
		w.OnDisk("prod", secret)
		w.Eventually("the revert is in the history", func() bool { return revertsInHistory(w) > before })
	}
	probes(w, 200, 200, "ok")
}
