package e2e_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

func TestHangUpTakesInstancesOver(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{Instances: []string{"stays", "goes"}})
	w.Reconfigured(func(o *container.Options) { o.Instances = []string{"stays", "comes"} })
	_, secrets["comes"] = w.NewSecret("comes")
	w.HangUp()
	s := w.AwaitStatus("both in sync", func(s container.Status) bool { return s.Applied(1) && world.One(s, "comes").State != "" })
	if len(s.Instances) != 2 || world.One(s, "goes").State != "" {
		t.Errorf("%+v", s)
	}
	w.Holds("comes", secrets["comes"])
	w.Holds("stays", secrets["stays"])
	w.Ran(3, "end", "set")
	// What is not ours any more is left alone.
	w.Blank("goes")
	blank := string(w.Read("goes"))
	w.Blank("stays")
	w.OnDisk("stays", secrets["stays"])
	w.Pass()
	if string(w.Read("goes")) != blank {
		t.Error("the file of an instance that was taken out is still guarded")
	}
	if n := w.Tokens(); n != 1 {
		t.Errorf("%d tokens", n)
	}
}

// A configuration that is bad, or changes what takes a restart, is reported, and the old one goes on.
func TestHangUpWithABadConfiguration(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	good, err := os.ReadFile(w.Config)
	w.Must(err)
	for _, c := range []struct{ text, says string }{
		{"nonsense: [", "config.yaml:"},
		{string(good) + "\nunknown_key: 1\n", "unknown_key"},
		{strings.Replace(string(good), "state_dir: ", "state_dir: /elsewhere", 1), "state_dir"},
		{strings.Replace(string(good), "poll: 1s", "poll: 1ms", 1), "watch.poll"},
		{"", "must be one YAML document"},
	} {
		w.Must(os.WriteFile(w.Config, []byte(c.text), 0o600))
		before := strings.Count(w.Log(), "configuration not reloaded, keeping the old one")
		w.Signal(syscall.SIGHUP)
		w.Eventually("it is refused", func() bool {
			return strings.Count(w.Log(), "configuration not reloaded, keeping the old one") > before
		})
		last := w.Log()[strings.LastIndex(w.Log(), "configuration not reloaded"):]
		world.Says(t, last, c.says)
		w.Is("prod", "in_sync")
		w.Blank("prod")
		w.OnDisk("prod", secrets["prod"])
	}
	w.Must(os.WriteFile(w.Config, good, 0o600))
	_, second := w.NewSecret("prod")
	w.InSync(2)
	w.Holds("prod", second)
}

// SIGUSR1 checks now, whenever the next poll would be.
func TestUserSignalChecksNow(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Settings: "watch: {poll: 1h}"})
	_, second := w.NewSecret("prod")
	w.Signal(syscall.SIGUSR1)
	w.InSync(2)
	w.Holds("prod", second)
}

// Signals that come while the configuration is taken over end nothing.
func TestSignalsWhileReloading(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Settings: "log: {level: warn, format: text}"})
	for range 100 {
		w.Signal(syscall.SIGHUP)
		for until := time.Now().Add(20 * time.Millisecond); time.Now().Before(until); {
			if err := w.Running.Signal(syscall.SIGUSR1); err != nil {
				t.Fatalf("a signal ended the daemon: %v", w.Running.Stop())
			}
		}
	}
	_, second := w.NewSecret("prod")
	w.Signal(syscall.SIGUSR1)
	w.InSync(2)
	w.Holds("prod", second)
}

// SIGTERM ends a daemon, and its token with it, whatever Vault and nlserver do.
func TestTermination(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{})
			if n := w.Tokens(); n != 1 {
				t.Fatalf("%d tokens", n)
			}
			w.Signal(signal)
			w.Ended(0)
			if n := w.Tokens(); n != 0 {
				t.Errorf("%d tokens are left", n)
			}
			if _, err := os.Lstat(w.Path("control.sock")); !os.IsNotExist(err) {
				t.Errorf("the control socket is left: %v", err)
			}
		})
	}
	t.Run("Vault hangs", func(t *testing.T) {
		t.Parallel()
		w, _ := world.Started(t, container.Options{Programs: world.Plain()})
		defer w.Proxy.Hang()()
		w.Proxy.Requests()
		w.Must(w.Proxy.Await(w.Ctx, 1, func(vaulttest.Request) bool { return true }))
		began := time.Now()
		w.Stop()
		t.Logf("it took %v; on a machine that is not busy, at most 5 s", time.Since(began))
	})
	t.Run("activation hangs", func(t *testing.T) {
		t.Parallel()
		w := world.New(t, container.Options{Programs: world.Plain()})
		w.Faults(`{"on": ["reload"], "hang": true, "ignore_sigterm": true}`)
		w.NewSecret("prod")
		w.StartDaemon()
		w.WaitsAt("hang")
		began := time.Now()
		w.Stop()
		t.Logf("it took %v; on a machine that is not busy, at most 5 s", time.Since(began))
		w.Faults("")
		w.StartDaemon()
		w.InSync(1)
		w.Ran(1, "end", "set")
	})
}

// An nlserver that is writing is waited for, and what it did is remembered; activation comes after the next start.
func TestTerminationWaitsForNlserver(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.Faults(`{"write_delay": "10m"}`)
	_, second := w.NewSecret("prod")
	w.WaitsAt("write_delay")
	w.Signal(syscall.SIGTERM)
	w.Logged("msg=stopping")
	w.Release()
	w.Ended(0)
	w.Holds("prod", second)
	w.Ran(1, "end", "reload")
	w.StartDaemon()
	w.InSync(2)
	w.Ran(2, "end", "set")
	w.Ran(2, "end", "reload")
}

// SIGHUP comes while nlserver is writing: it is waited for, and not run twice.
func TestHangUpWaitsForNlserver(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.Faults(`{"write_delay": "10m"}`)
	_, second := w.NewSecret("prod")
	w.WaitsAt("write_delay")
	w.Signal(syscall.SIGHUP)
	w.Eventually("the configuration is read", func() bool { return strings.Contains(w.Log(), "waiting for running steps to end") })
	w.Release()
	w.Eventually("the configuration is reloaded", func() bool { return strings.Contains(w.Log(), "configuration reloaded") })
	w.InSync(2)
	w.Holds("prod", second)
	w.Ran(2, "end", "set")
	w.Ran(2, "end", "reload")
}

// A second daemon on the same state directory is refused, and the first one goes on; a socket that a killed one left is
// replaced, and nothing else that is in its place.
func TestOneDaemonOnly(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	stdout, stderr, status := w.RunCommand("run")
	if status != 1 || stdout != "" {
		t.Errorf("a second daemon ended with %d: %s%s", status, stdout, stderr)
	}
	world.Says(t, stderr, "in use", w.StateDir())
	w.Is("prod", "in_sync")
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])

	w.Kill()
	if _, err := os.Lstat(w.Path("control.sock")); err != nil {
		t.Errorf("a killed daemon leaves its socket: %v", err)
	}
	w.StartDaemon()
	w.InSync(1)
	if info, err := os.Lstat(w.Path("control.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	w.Stop()

	precious := w.Path("control.sock")
	w.Must(os.WriteFile(precious, []byte("precious"), 0o600))
	d, err := w.Start(nil)
	w.Must(err)
	select {
	case <-d.Ended():
		if d.ExitStatus() != 1 || !strings.Contains(d.Log(), "control_socket") {
			t.Errorf("with a file in the socket's place: %d, %s", d.ExitStatus(), d.Log())
		}
	case <-time.After(world.Patience):
		t.Error("with a file in the socket's place it runs")
		d.Stop()
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Errorf("a file in the socket's place was removed: %v", err)
	}
}

// Whoever reads the log may go away; the daemon goes on without.
func TestLogReaderGoesAway(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Stop()
	r, pipe, err := os.Pipe()
	w.Must(err)
	d := w.StartWriting(pipe)
	pipe.Close()
	w.Eventually("it answers", func() bool { _, err := w.Asker().Status(w.Ctx); return err == nil })
	w.Is("prod", "in_sync")
	r.Close()
	for range 3 {
		w.Blank("prod")
		w.OnDisk("prod", secrets["prod"])
	}
	w.Must(d.Signal(syscall.SIGTERM))
	state, err := d.Wait()
	if err != nil || state.ExitCode() != 0 {
		t.Errorf("the daemon ended with %v, %v", state, err)
	}
}
