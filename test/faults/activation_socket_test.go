package faults_test

import (
	"encoding/json"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// askActivation sends text to the activation socket and returns the first answer.
func askActivation(w *world.World, text string) string {
	w.T.Helper()
	conn, err := net.Dial("unix", w.ActivationSocket())
	w.Must(err)
	defer conn.Close()
	w.Must(conn.SetDeadline(time.Now().Add(world.Patience)))
	conn.Write([]byte(text)) // fails where it is refused before all of it was sent
	var answer json.RawMessage
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return err.Error()
	}
	return string(answer)
}

// What is no configured step is refused, and nothing keeps the next good step from working: garbage, half a request, silence of many.
func TestActivationSocketRefuses(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Outside: true, Campaign: "activate: {restart: [web]}"})
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	runs := len(allRuns(w))
	for _, asked := range []string{
		`{"step":"restart pipelined@prod"}`, `{"step":"restart pipelined@other"}`, `{"step":"restart"}`, `{"step":"config -setimsoauth:a/b/c/d"}`,
		`{"step":"restart ../../bin/sh"}`, `{"step":"reload","env":"PATH=/tmp"}`, `{"step":"reload"} {"step":"reload"}`, `{}`, `[]`, `reload`, ``,
		strings.Repeat("x", 1<<16), "\x00\xff\xfe", `{"step":"` + strings.Repeat("a", 500) + `"}`,
	} {
		if answer := askActivation(w, asked+"\n"); !strings.Contains(answer, `"refused"`) {
			t.Errorf("%.60q is answered %q", asked, answer)
		}
	}
	if answer := askActivation(w, `{"step":"relo`); !strings.Contains(answer, `"refused"`) { // and no more
		t.Errorf("half a request is answered %q", answer)
	}
	var silent sync.WaitGroup
	for range 10 {
		silent.Go(func() {
			if conn, err := net.Dial("unix", w.ActivationSocket()); err == nil {
				conn.Read(make([]byte, 1))
				conn.Close()
			}
		})
	}
	silent.Wait()
	if now := allRuns(w); len(now) > runs {
		t.Errorf("nlserver ran: %+v", now[runs:])
	}
	if said := w.Activation.Printed(); !strings.Contains(said, "is no step of the configuration") || !strings.Contains(said, "longer than 512 bytes") {
		t.Errorf("the service says %s", said)
	}
	version, _ := w.NewSecret("prod")
	w.InSync(version)
	w.Ran(2, "end", "restart", "web")
}

// A service that is killed in the middle of a restart leaves that alone. No second one is begun before it has ended.
func TestActivationServiceIsKilled(t *testing.T) {
	t.Parallel()
	w, _ := slowRestart(t, true, "activate: {restart: [web]}", `{"restart_slow": "10m", "times": 1}`)
	w.Must(w.Activation.Signal(syscall.SIGKILL))
	w.Is("prod", "activation_pending/activation_failed", "restart web")
	w.Pass()
	w.Is("prod", "activation_pending/activation_failed", "restart web", "has not ended yet")
	w.Ran(1, "start", "restart", "web")
	w.Release()
	w.Eventually("it ended", func() bool { return w.CountRuns("end", "restart", "web") == 1 })
	w.Eventually("it is in sync", func() bool { return w.Pass().Is("in_sync") })
	noOverlap(t, w, "web")
}

// A configuration that a reload has rejected keeps nobody from activating, unless it is wrong in what activation needs.
func TestActivationWithARejectedConfiguration(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Outside: true, Campaign: "activate: {restart: [web]}"})
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	good, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, append([]byte("no_such_key: 1\n"), good...), 0o600))
	version, _ := w.NewSecret("prod")
	w.InSync(version)
	w.Must(os.WriteFile(w.Config, []byte(strings.Replace(string(good), "restart: [web]", "restarts: [web]", 1)), 0o600))
	version, _ = w.NewSecret("prod")
	w.Is("prod", "activation_pending/activation_failed", "the activation service refuses", "campaign.activate.restarts: unknown key")
	w.Must(os.WriteFile(w.Config, good, 0o600))
	w.InSync(version)
}
