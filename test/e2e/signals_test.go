package e2e_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/sources/vaulttest"
	"campaign-credsync/test/container"
)

// hangUp sends SIGHUP and waits until the daemon has taken the configuration over.
func (w *world) hangUp() {
	w.t.Helper()
	before := strings.Count(w.daemon.Log(), "configuration reloaded")
	w.signal(syscall.SIGHUP)
	w.eventually("the configuration is reloaded", func() bool {
		return strings.Count(w.daemon.Log(), "configuration reloaded") > before
	})
}

func TestHangUpTakesInstancesOver(t *testing.T) {
	t.Parallel()
	w, secrets := started(t, container.Options{Instances: []string{"stays", "goes"}})
	w.reconfigure(func(o *container.Options) { o.Instances = []string{"stays", "comes"} })
	_, secrets["comes"] = w.rotate("comes")
	w.hangUp()
	s := w.await("both in sync", func(s container.Status) bool { return s.Applied(1) && one(s, "comes").State != "" })
	if len(s.Instances) != 2 || one(s, "goes").State != "" {
		t.Errorf("%+v", s)
	}
	w.holds("comes", secrets["comes"])
	w.holds("stays", secrets["stays"])
	w.ran(3, "end", "set")
	// What is not ours any more is left alone.
	w.blank("goes")
	blank := string(w.read("goes"))
	w.blank("stays")
	w.onDisk("stays", secrets["stays"])
	w.pass()
	if string(w.read("goes")) != blank {
		t.Error("the file of an instance that was taken out is still guarded")
	}
	if n := w.tokens(); n != 1 {
		t.Errorf("%d tokens", n)
	}
}

// A configuration that is bad, or changes what takes a restart, is reported, and the old one goes on.
func TestHangUpWithABadConfiguration(t *testing.T) {
	t.Parallel()
	w, secrets := started(t, container.Options{})
	good, err := os.ReadFile(w.Config)
	w.must(err)
	for _, c := range []struct{ text, says string }{
		{"nonsense: [", "config.yaml:"},
		{string(good) + "\nunknown_key: 1\n", "unknown_key"},
		{strings.Replace(string(good), "state_dir: ", "state_dir: /elsewhere", 1), "state_dir"},
		{strings.Replace(string(good), "poll: 1s", "poll: 1ms", 1), "watch.poll"},
		{"", "holds no settings"},
	} {
		w.must(os.WriteFile(w.Config, []byte(c.text), 0o600))
		before := strings.Count(w.log(), "configuration not reloaded, keeping the old one")
		w.signal(syscall.SIGHUP)
		w.eventually("it is refused", func() bool {
			return strings.Count(w.log(), "configuration not reloaded, keeping the old one") > before
		})
		last := w.log()[strings.LastIndex(w.log(), "configuration not reloaded"):]
		says(t, last, c.says)
		w.is("prod", "in_sync")
		w.blank("prod")
		w.onDisk("prod", secrets["prod"])
	}
	w.must(os.WriteFile(w.Config, good, 0o600))
	_, second := w.rotate("prod")
	w.inSync(2)
	w.holds("prod", second)
}

// SIGUSR1 checks now, whenever the next poll would be.
func TestUserSignalChecksNow(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{Settings: "watch: {poll: 1h}"})
	_, second := w.rotate("prod")
	w.signal(syscall.SIGUSR1)
	w.inSync(2)
	w.holds("prod", second)
}

// Signals that come while the configuration is taken over end nothing.
func TestSignalsWhileReloading(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{Settings: "log: {level: warn, format: text}"})
	for range 100 {
		w.signal(syscall.SIGHUP)
		for until := time.Now().Add(20 * time.Millisecond); time.Now().Before(until); {
			if err := w.daemon.Signal(syscall.SIGUSR1); err != nil {
				t.Fatalf("a signal ended the daemon: %v", w.daemon.Stop())
			}
		}
	}
	_, second := w.rotate("prod")
	w.signal(syscall.SIGUSR1)
	w.inSync(2)
	w.holds("prod", second)
}

// tokens counts the live tokens that the daemon's role has. Those of other tests may end while they are listed, which
// fails the listing.
func (w *world) tokens() (n int) {
	w.t.Helper()
	w.eventually("Vault lists the tokens", func() bool {
		accessors, err := w.Vault.RoleTokens(w.ctx, w.RoleID)
		n = len(accessors)
		return err == nil
	})
	return n
}

// SIGTERM ends an idle daemon within 5 s and its token with it, whatever Vault does.
func TestTermination(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			w, _ := started(t, container.Options{})
			if n := w.tokens(); n != 1 {
				t.Fatalf("%d tokens", n)
			}
			w.signal(signal)
			w.ended(0)
			if n := w.tokens(); n != 0 {
				t.Errorf("%d tokens are left", n)
			}
			if _, err := os.Lstat(w.path("control.sock")); !os.IsNotExist(err) {
				t.Errorf("the control socket is left: %v", err)
			}
		})
	}
	t.Run("Vault hangs", func(t *testing.T) {
		t.Parallel()
		w, _ := started(t, container.Options{})
		defer w.Proxy.Hang()()
		w.Proxy.Requests()
		w.must(w.Proxy.Await(w.ctx, 1, func(vaulttest.Request) bool { return true }))
		began := time.Now()
		w.stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
	t.Run("activation hangs", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, container.Options{})
		w.faults(`{"on": ["reload"], "hang": true, "ignore_sigterm": true}`)
		w.rotate("prod")
		w.start()
		w.waits("hang")
		began := time.Now()
		w.stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		w.faults("")
		w.start()
		w.inSync(1)
		w.ran(1, "end", "set")
	})
}

// An nlserver that is writing is waited for, and what it did is remembered; activation comes after the next start.
func TestTerminationWaitsForNlserver(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{})
	w.faults(`{"write_delay": "1500ms"}`)
	_, second := w.rotate("prod")
	w.waits("write_delay")
	w.stop()
	w.holds("prod", second)
	w.ran(1, "end", "reload")
	w.start()
	w.inSync(2)
	w.ran(2, "end", "set")
	w.ran(2, "end", "reload")
}

// SIGHUP comes while nlserver is writing: it is waited for, and not run twice.
func TestHangUpWaitsForNlserver(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{})
	w.faults(`{"write_delay": "1500ms"}`)
	_, second := w.rotate("prod")
	w.waits("write_delay")
	w.hangUp()
	w.inSync(2)
	w.holds("prod", second)
	w.ran(2, "end", "set")
	w.ran(2, "end", "reload")
}

// A second daemon on the same state directory is refused, and the first one goes on; a socket that a killed one left is
// replaced, and nothing else that is in its place.
func TestOneDaemonOnly(t *testing.T) {
	t.Parallel()
	w, secrets := started(t, container.Options{})
	stdout, stderr, status := w.command("run")
	if status != 1 || stdout != "" {
		t.Errorf("a second daemon ended with %d: %s%s", status, stdout, stderr)
	}
	says(t, stderr, "in use", w.StateDir())
	w.is("prod", "in_sync")
	w.blank("prod")
	w.onDisk("prod", secrets["prod"])

	w.kill()
	if _, err := os.Lstat(w.path("control.sock")); err != nil {
		t.Errorf("a killed daemon leaves its socket: %v", err)
	}
	w.start()
	w.inSync(1)
	if info, err := os.Lstat(w.path("control.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	w.stop()

	precious := w.path("control.sock")
	w.must(os.WriteFile(precious, []byte("precious"), 0o600))
	d, err := w.Start(nil)
	w.must(err)
	select {
	case <-d.Ended():
		if d.ExitStatus() != 1 || !strings.Contains(d.Log(), "control_socket") {
			t.Errorf("with a file in the socket's place: %d, %s", d.ExitStatus(), d.Log())
		}
	case <-time.After(2 * time.Second):
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
	w, secrets := started(t, container.Options{})
	w.stop()
	r, pipe, err := os.Pipe()
	w.must(err)
	d := w.startWriting(pipe)
	pipe.Close()
	w.eventually("it answers", func() bool { _, err := w.Asker().Status(w.ctx); return err == nil })
	w.is("prod", "in_sync")
	r.Close()
	for range 3 {
		w.blank("prod")
		w.onDisk("prod", secrets["prod"])
	}
	w.must(d.Signal(syscall.SIGTERM))
	state, err := d.Wait()
	if err != nil || state.ExitCode() != 0 {
		t.Errorf("the daemon ended with %v, %v", state, err)
	}
}
