package e2e_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/sources/vaulttest"
	"campaign-credsync/test/container"
)

// What the tests share: a Vault, in which each has a role and paths of its own, and executables. The daemon is built with
// the race detector.
var (
	vault    *vaulttest.Server
	programs container.Programs
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	// They wait much more than they compute.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		flag.Set("test.parallel", "12")
	}
	dir, err := os.MkdirTemp("", "credsync-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755) // for a daemon that is not root
	programs, err = container.Build(context.Background(), dir, true)
	if err == nil {
		vault, err = vaulttest.Launch(context.Background(), os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer vault.Close()
	return m.Run()
}

// world is one Campaign container with its daemon, seen from outside. At its end it checks what must hold whatever a
// test did; see finish.
type world struct {
	*container.Container
	t       *testing.T
	ctx     context.Context
	daemon  *container.Daemon   // the one that runs; nil when none does
	daemons []*container.Daemon // all that were started

	printed bytes.Buffer      // by commands
	secrets []string          // that must show nowhere
	foreign map[string][]byte // by instance: the file's bytes that are not ours
	conf    []string          // names in conf/ at the end, besides those of whole instances
	last    []func()          // called at the very end

	loggedIn int // logins that were counted
}

// in makes a subtest of its own test the one that fails, until it is called with the outer one.
func (w *world) in(t *testing.T) { w.t = t }

// patience bounds every wait: long, as a machine may be busy. It is what a failing test costs.
const patience = 30 * time.Second

// newWorld sets up a container with the instance "prod", unless told otherwise, that polls every second and logs
// everything. Nothing runs yet.
func newWorld(t *testing.T, options container.Options) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "credsync-e2e-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if options.Instances == nil {
		options.Instances = []string{"prod"}
	}
	if options.Vault == nil {
		options.Vault = vault
	}
	if !strings.Contains(options.Settings, "watch:") {
		options.Settings += "\nwatch: {poll: 1s}"
	}
	if !strings.Contains(options.Settings, "log:") {
		options.Settings += "\nlog: {level: debug, format: text}"
	}
	options.Programs = programs
	c, err := container.New(t.Context(), dir, options)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Container: c, t: t, ctx: t.Context(), foreign: map[string][]byte{}}
	secretID, err := os.ReadFile(c.SecretID)
	if err != nil {
		t.Fatal(err)
	}
	w.secrets = append(w.secrets, strings.TrimSpace(string(secretID)))
	for _, name := range c.Instances {
		w.foreign[name] = foreign(w.read(name))
	}
	t.Cleanup(w.finish)
	return w
}

// start starts a daemon and returns when it answers.
func (w *world) start() {
	w.t.Helper()
	d, err := w.Start(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.daemon, w.daemons = d, append(w.daemons, d)
	w.eventually("the daemon answers", func() bool {
		_, err := w.Asker().Status(w.ctx)
		select {
		case <-d.Ended():
			w.t.Fatalf("the daemon ended with %d:\n%s", d.ExitStatus(), d.Log())
		default:
		}
		return err == nil
	})
}

// startWriting starts a daemon that logs to a file of the test's; it is the test that ends it.
func (w *world) startWriting(log *os.File) *os.Process {
	w.t.Helper()
	c := exec.Command(programs.Daemon, "--config", w.Config, "run")
	c.Stdout, c.Stderr = log, log
	w.must(c.Start())
	w.t.Cleanup(func() { c.Process.Kill() })
	return c.Process
}

// started sets up a world whose instances are in sync with version 1, and returns the secrets.
func started(t *testing.T, options container.Options) (*world, map[string]string) {
	t.Helper()
	w := newWorld(t, options)
	secrets := map[string]string{}
	for _, name := range w.Instances {
		_, secrets[name] = w.rotate(name)
	}
	w.start()
	w.inSync(1)
	return w, secrets
}

// stop ends the daemon as systemd does.
func (w *world) stop() {
	w.t.Helper()
	w.signal(syscall.SIGTERM)
	w.ended(0)
}

// ended waits for the daemon's end and its exit status.
func (w *world) ended(want int) {
	w.t.Helper()
	select {
	case <-w.daemon.Ended():
	case <-time.After(patience):
		w.t.Fatalf("the daemon does not end\n%s", w.log())
	}
	if got := w.daemon.ExitStatus(); got != want {
		w.t.Errorf("the daemon ended with status %d, want %d\n%s", got, want, w.log())
	}
	w.daemon = nil
}

// kill ends the daemon without any warning.
func (w *world) kill() {
	w.daemon.Kill()
	w.daemon = nil
}

func (w *world) signal(s os.Signal) {
	w.t.Helper()
	if err := w.daemon.Signal(s); err != nil {
		w.t.Fatal("the daemon is gone: ", err)
	}
}

// log is what all daemons printed, the last one at the end.
func (w *world) log() string {
	var all strings.Builder
	for _, d := range w.daemons {
		all.WriteString(d.Log())
	}
	return all.String()
}

// command runs a command and notes what it prints.
func (w *world) command(args ...string) (stdout, stderr string, status int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	stdout, stderr, status = w.Command(ctx, args...)
	fmt.Fprintf(&w.printed, "%s%s", stdout, stderr)
	if strings.Contains(stderr, "panic:") {
		w.t.Errorf("%v panics: %s", args, stderr)
	}
	return stdout, stderr, status
}

// pass has the daemon do a full check and returns the status after it.
func (w *world) pass() container.Status {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	s, err := w.Asker().Sync(ctx)
	if err != nil {
		w.t.Fatalf("ask for a pass: %v\n%s", err, w.log())
	}
	return s
}

// eventually waits for something that nothing announces.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if w.ctx.Err() != nil || time.Now().After(deadline) {
			s, err := w.Asker().Status(context.Background())
			w.t.Fatalf("in vain: %s\nstatus %+v, %v\n%s", what, s, err, w.log())
		}
	}
}

// await waits for a status.
func (w *world) await(what string, fits func(container.Status) bool) container.Status {
	w.t.Helper()
	var s container.Status
	w.eventually(what, func() bool {
		var err error
		s, err = w.Asker().Status(w.ctx)
		return err == nil && fits(s)
	})
	return s
}

// is waits until an instance has a state, with a last error that says everything that its reader needs, and returns it.
func (w *world) is(instance, state string, says ...string) string {
	w.t.Helper()
	s := w.await(fmt.Sprintf("%s is %s and says %q", instance, state, says), func(s container.Status) bool {
		in := one(s, instance)
		return in.State == state && !slices.ContainsFunc(says, func(text string) bool { return !strings.Contains(in.LastError, text) })
	})
	return one(s, instance).LastError
}

// inSync waits until every instance is in sync with a version.
func (w *world) inSync(version int) {
	w.t.Helper()
	w.await(fmt.Sprintf("all in sync with version %d", version), func(s container.Status) bool {
		for _, in := range s.Instances {
			if in.AppliedVersion != version {
				return false
			}
		}
		return s.Is("in_sync")
	})
}
