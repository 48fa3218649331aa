// Package world is a Campaign container with its daemon, seen from outside, for tests: a real Vault, a Campaign home in a temporary
// directory with a stand-in of nlserver, and the daemon built with the race detector. Whatever a test did, it ends with
// the same questions; see finish.go.
package world

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
)

// What the tests of a package share: a Vault, in which each has a role and paths of its own, and executables. The daemon is built with
// the race detector.
var (
	vault    *vaulttest.Server
	programs container.Programs
)

// Main sets up what the tests of a package share and runs them. Its result is for os.Exit.
func Main(m *testing.M) int {
	flag.Parse()
	// They wait much more than they compute.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		flag.Set("test.parallel", "12")
	}
	// A daemon with the race detector reports what it finds before it ends, and needs no second for it.
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	dir, err := os.MkdirTemp("", "credsync-test-bin-")
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
type World struct {
	*container.Container
	T       *testing.T // the one that fails
	Ctx     context.Context
	Running *container.Daemon   // nil when no daemon runs
	Daemons []*container.Daemon // all that were started

	Printed bytes.Buffer      // by commands
	Secrets []string          // that must show nowhere
	Foreign map[string][]byte // by instance: the file's bytes that are not ours
	Conf    []string          // names in conf/ at the end, besides those of whole instances
	Last    []func()          // called at the very end

	Activation *container.Activation // where Options.Outside asks for it

	loggedIn int // logins that were counted
}

// Plain are the programs without the race detector: they start sooner and call the system less.
func Plain() container.Programs {
	plain := programs
	plain.Daemon = plain.Command
	return plain
}

// In makes a subtest of its own test the one that fails, until it is called with the outer one.
func (w *World) In(t *testing.T) { w.T = t }

// Patience bounds every wait. It is for what hangs, never for what is slow: the machine may be busy with much else.
// TEST_PATIENCE names another, for who wants a test to fail soon.
var Patience = patience(5 * time.Minute)

func patience(usual time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv("TEST_PATIENCE")); err == nil {
		return d
	}
	return usual
}

// New sets up a container with the instance "prod", unless told otherwise, that polls every second and logs
// everything. Nothing runs yet.
func New(t *testing.T, options container.Options) *World {
	t.Helper()
	dir, err := os.MkdirTemp("", "credsync-test-") // the path of a socket must be short
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
	if options.Progress == nil {
		options.Progress = os.Stderr // for a Vault of its own, which may have to be built
	}
	if options.Vault == nil && !options.Push {
		options.Vault = vault
	}
	if !strings.Contains(options.Settings, "watch:") {
		options.Settings += "\nwatch: {poll: 1s}"
	}
	if !strings.Contains(options.Settings, "log:") {
		options.Settings += "\nlog: {level: debug, format: text}"
	}
	if options.Programs == (container.Programs{}) {
		options.Programs = programs
	}
	c, err := container.New(t.Context(), dir, options)
	if err != nil {
		t.Fatal(err)
	}
	w := &World{Container: c, T: t, Ctx: t.Context(), Foreign: map[string][]byte{}}
	secretID, err := os.ReadFile(c.SecretID)
	if err != nil {
		t.Fatal(err)
	}
	w.Secrets = append(w.Secrets, strings.TrimSpace(string(secretID)))
	for _, name := range c.Instances {
		w.Foreign[name] = ForeignBytes(w.Read(name))
	}
	t.Cleanup(w.finish)
	if options.Outside {
		w.Activation, err = w.ServeActivation()
		w.Must(err)
		w.Last = append(w.Last, w.Activation.Close) // when no restart is left
	}
	return w
}

// Started sets up a world whose instances are in sync with version 1, and returns the secrets.
func Started(t *testing.T, options container.Options) (*World, map[string]string) {
	t.Helper()
	w := New(t, options)
	secrets := map[string]string{}
	for _, name := range w.Instances {
		_, secrets[name] = w.NewSecret(name)
	}
	w.StartDaemon()
	w.InSync(1)
	return w, secrets
}

// Eventually waits for something that nothing announces. What may be over soon is not awaited by this: it is read from a record,
// or kept up until the test has seen it. The longer it has waited the less often it asks: a tenth more of time for each wait, at most.
func (w *World) Eventually(what string, holds func() bool) {
	w.T.Helper()
	began := time.Now()
	pause := func() time.Duration { return min(max(time.Since(began)/10, 5*time.Millisecond), 100*time.Millisecond) }
	for deadline := began.Add(Patience); !holds(); time.Sleep(pause()) {
		if w.Ctx.Err() != nil || time.Now().After(deadline) {
			s, err := w.Asker().Status(context.Background())
			w.T.Fatalf("in vain: %s\nstatus %+v, %v\n%s", what, s, err, w.Log())
		}
	}
}

// Succeeds tries again until try succeeds.
func (w *World) Succeeds(what string, try func() error) {
	w.T.Helper()
	var last error
	defer func() {
		if last != nil {
			w.T.Errorf("%s: %v", what, last)
		}
	}()
	w.Eventually(what, func() bool { last = try(); return last == nil })
}

// AwaitStatus waits for a status.
func (w *World) AwaitStatus(what string, fits func(container.Status) bool) container.Status {
	w.T.Helper()
	var s container.Status
	w.Eventually(what, func() bool {
		var err error
		s, err = w.Asker().Status(w.Ctx)
		return err == nil && fits(s)
	})
	return s
}

// Is waits until an instance is as it should be, with a last error that says everything that its reader needs, and returns it. How it
// should be is a state, or a state and its reason: "blocked" or "blocked/secret_deleted".
func (w *World) Is(instance, condition string, says ...string) string {
	w.T.Helper()
	state, reason, asked := strings.Cut(condition, "/")
	s := w.AwaitStatus(fmt.Sprintf("%s is %s and says %q", instance, condition, says), func(s container.Status) bool {
		in := One(s, instance)
		return in.State == state && (!asked || in.Reason == reason) && !slices.ContainsFunc(says, func(text string) bool { return !strings.Contains(in.LastError, text) })
	})
	return One(s, instance).LastError
}

// Logged waits until one line of the log says everything, and returns it. A state may be over before anybody asks for it; the log keeps it.
func (w *World) Logged(says ...string) (line string) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("a line of the log says %q", says), func() bool {
		for line = range strings.Lines(w.Log()) {
			if !slices.ContainsFunc(says, func(text string) bool { return !strings.Contains(line, text) }) {
				return true
			}
		}
		return false
	})
	return line
}

// InSync waits until every instance is in sync with a version.
func (w *World) InSync(version int) {
	w.T.Helper()
	w.AwaitStatus(fmt.Sprintf("all in sync with version %d", version), func(s container.Status) bool {
		for _, in := range s.Instances {
			if in.AppliedVersion != version {
				return false
			}
		}
		return s.Is("in_sync")
	})
}

// Applied waits until the daemon has recorded a version as applied. Before that, what is done to the file may be taken for what nlserver left.
func (w *World) Applied(instance string, version int) {
	w.T.Helper()
	w.AwaitStatus(fmt.Sprintf("version %d of %s is applied", version, instance), func(s container.Status) bool {
		return One(s, instance).AppliedVersion == version
	})
}

// Reverted waits until so many reverts of an instance are counted in all and it is in sync: drift that a busy machine leaves on disk for
// long is followed by activation.
func (w *World) Reverted(instance string, total int) {
	w.T.Helper()
	w.AwaitStatus(fmt.Sprintf("%d reverts of %s", total, instance), func(s container.Status) bool {
		return One(s, instance).State == "in_sync" && One(s, instance).RevertedTotal == total
	})
}

// OneInSync waits until one instance is in sync with a version.
func (w *World) OneInSync(instance string, version int) {
	w.T.Helper()
	w.AwaitStatus(instance+" in sync", func(s container.Status) bool {
		return One(s, instance).State == "in_sync" && One(s, instance).AppliedVersion == version
	})
}

func (w *World) Must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}
