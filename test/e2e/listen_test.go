package e2e_test

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// listeners are the sockets that the daemon listens at, without the one that only claims an instance's file.
func listeners(w *world.World) (all []string) {
	w.T.Helper()
	out, err := exec.Command("ss", "-Hltnxp").Output()
	w.Must(err)
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, fmt.Sprintf("pid=%d,", w.Running.PID())) && !strings.Contains(line, " @campaign-credsync/") {
			all = append(all, line)
		}
	}
	return all
}

// Without listen the control socket is all that the daemon listens at; with it, one more. An address that is taken stops the start.
func TestListeners(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	if all := listeners(w); len(all) != 1 || !strings.Contains(all[0], "control.sock") {
		t.Errorf("with listen off: %q", all)
	}
	w.Stop()

	w.Reconfigured(func(o *container.Options) { o.Settings += "\nlisten: unix:" + w.Path("http.sock") })
	w.StartDaemon()
	w.InSync(1)
	if all := listeners(w); len(all) != 2 || !strings.Contains(strings.Join(all, ""), w.Path("http.sock")) {
		t.Errorf("with a socket: %q", all)
	}
	w.Kill() // leaves the socket, which the next start replaces
	w.StartDaemon()
	w.InSync(1)
	w.Stop()

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	w.Must(err)
	defer taken.Close()
	w.Reconfigured(func(o *container.Options) {
		o.Settings = strings.Replace(o.Settings, "unix:"+w.Path("http.sock"), taken.Addr().String(), 1)
	})
	w.Exits(1, "listen: listen tcp "+taken.Addr().String(), "run")

	// What Prometheus would have to quote is refused: as the name of an instance, and of a module.
	for _, hostile := range []string{`'a"} 1'`, `"a\nb"`, `'../x'`, `'é'`, "'" + strings.Repeat("x", 200) + "'"} {
		w.Must(exec.Command("sed", "-i", "s|{name: prod,|{name: "+strings.ReplaceAll(hostile, `\`, `\\`)+",|", w.Config).Run())
		w.Exits(2, "instances[0].name", "validate")
		w.Reconfigured(func(*container.Options) {})
	}
}
