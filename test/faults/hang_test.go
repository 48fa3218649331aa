package faults_test

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// hung waits, longer than world.Patience, until an instance is degraded because of a step that does not end, and demands that this
// was said so often.
func hung(w *world.World, instance, step string, times int) {
	w.T.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		s, err := w.Asker().Status(w.Ctx)
		in := world.One(s, instance)
		if err == nil && in.State == "degraded" && strings.Contains(in.LastError, "does not end: "+step) {
			break
		}
		if time.Now().After(deadline) {
			w.T.Fatalf("in vain: %s hangs in %q; status %+v, %v\n%s", instance, step, in, err, w.Log())
		}
	}
	said := regexp.MustCompile(`level=ERROR msg="a step does not end.*instance=` + instance + ` step="?` + regexp.QuoteMeta(step))
	count := func() int { return len(said.FindAllString(w.Log(), -1)) }
	w.Eventually("it is said", func() bool { return count() >= times })
	if n := count(); n != times {
		w.T.Errorf("said %d times, want %d\n%s", n, times, w.Log())
	}
}

// A step of each kind hangs on a mount that does not answer: it is said once, the instance is degraded, a pass ends, a reload leaves
// the old configuration at work, and all is well when the mount answers again. A stop leaves the step behind.
func TestStepHangs(t *testing.T) {
	t.Parallel()
	bin := func(w *world.World) string { return w.Path("nl6", "bin") }
	conf := func(w *world.World) string { return w.Path("nl6", "conf") }
	state := func(w *world.World) string { return w.StateDir() }
	check := func(w *world.World) { w.Signal(syscall.SIGUSR1) }
	rotate := func(w *world.World) { w.NewSecret("prod") }
	for name, c := range map[string]struct {
		step    string
		place   func(w *world.World) string
		begin   func(w *world.World)
		long    bool // its bound is longer than 10 s
		options container.Options
	}{
		"look":              {"look at the configuration file", conf, check, false, container.Options{Settings: "drift: {revert: alert}"}},
		"restore":           {"restore of the configuration file", conf, check, false, container.Options{}},
		"idle":              {"restore of the configuration file", conf, func(*world.World) {}, false, container.Options{}},
		"save":              {"save of the state", state, func(w *world.World) { w.Blank("prod") }, false, container.Options{}},
		"intent":            {"apply", state, rotate, true, container.Options{}},
		"start of nlserver": {"apply", bin, rotate, true, container.Options{}},
		"activation":        {"activation, reload", bin, check, false, container.Options{}},
		"secret-id":         {"poll of the source", func(w *world.World) string { return w.SecretID }, check, true, container.Options{TokenTTL: 2 * time.Second}},
	} {
		if c.long && !*full { // its bound is up to a minute
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			world.NeedsRoot(t)
			w, _ := world.Started(t, c.options)
			if name == "activation" {
				w.Faults(`{"reload_fail": true, "on": ["reload"]}`)
				w.NewSecret("prod")
				w.Is("prod", "activation_pending/activation_failed", "reload")
			}
			over := w.Hangs(c.place(w))
			began := time.Now()
			c.begin(w)
			hung(w, "prod", c.step, 1)
			degraded := time.Since(began)
			w.Exits(1, "does not end", "sync")
			w.Signal(syscall.SIGHUP)
			w.Eventually("the reload is refused", func() bool {
				return strings.Contains(w.Log(), `level=ERROR msg="configuration not reloaded, keeping the old one"`)
			})
			over()
			w.Eventually("the end is said", func() bool { return strings.Contains(w.Log(), `msg="the step that did not end has ended"`) })
			w.Faults("")
			_, secret := w.NewSecret("prod")
			w.OnDisk("prod", secret)
			w.AwaitStatus("in sync", func(s container.Status) bool { return s.Is("in_sync") })

			if name == "activation" {
				w.Faults(`{"reload_fail": true, "on": ["reload"]}`)
				w.NewSecret("prod")
				w.Is("prod", "activation_pending", "reload")
			}
			over = w.Hangs(c.place(w))
			w.Last = append(w.Last, over)
			c.begin(w)
			hung(w, "prod", c.step, 2)
			asked := time.Now()
			w.Signal(syscall.SIGTERM)
			w.Eventually("it has stopped", func() bool { return strings.Contains(w.Log(), "msg=stopped") })
			stopped := time.Since(asked)
			w.Ended(0)
			if !strings.Contains(w.Log(), `level=ERROR msg="steps that do not end are left behind"`) {
				t.Errorf("what is left behind is not said\n%s", w.Log())
			}
			t.Logf("degraded after %.1f s, done %.1f s and ended %.1f s after SIGTERM", degraded.Seconds(), stopped.Seconds(), time.Since(asked).Seconds())
			over()
			w.Faults("")
			w.StartDaemon()
			w.AwaitStatus("in sync", func(s container.Status) bool { return s.Is("in_sync") })
		})
	}
}

// A configuration that cannot be read leaves the old one at work, whose reverts go on, and is told.
func TestReloadHangs(t *testing.T) {
	t.Parallel()
	for name, place := range map[string]func(w *world.World){
		"mount": func(w *world.World) { w.Hangs(w.Config) },
		"FIFO": func(w *world.World) {
			w.Must(os.Remove(w.Config))
			w.Must(unix.Mkfifo(w.Config, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{})
			place(w)
			began := time.Now()
			w.Signal(syscall.SIGHUP)
			w.Eventually("it is told", func() bool {
				return strings.Contains(w.Log(), `level=ERROR msg="configuration not reloaded, keeping the old one"`)
			})
			told := time.Since(began)
			version, next := w.NewSecret("prod")
			w.Applied("prod", version)
			w.Blank("prod")
			w.OnDisk("prod", next)
			w.Signal(syscall.SIGHUP)
			asked := time.Now()
			w.Stop()
			t.Logf("told after %.1f s, ended %.1f s after SIGTERM", told.Seconds(), time.Since(asked).Seconds())
		})
	}
}

// A frozen disk holds the thread that puts drift back. By the time that a stop may take, the daemon has said so and revoked its token.
func TestFrozenDisk(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{})
	freeze, thaw := w.Freezes(w.Path("nl6", "conf"))
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Signal(syscall.SIGSTOP)
	w.Blank("prod")
	freeze()
	began := time.Now()
	w.Signal(syscall.SIGCONT)
	hung(w, "prod", "restore of the configuration file", 1)
	degraded := time.Since(began)
	w.Exits(1, "does not end", "sync")
	w.Exits(3, "differs from what was applied", "diff")
	asked := time.Now()
	w.Signal(syscall.SIGTERM)
	w.Eventually("it has left the step behind", func() bool { return strings.Contains(w.Log(), `msg="steps that do not end are left behind"`) })
	w.Eventually("it has stopped", func() bool { return strings.Contains(w.Log(), "msg=stopped") })
	t.Logf("degraded after %.1f s, done %.1f s after SIGTERM", degraded.Seconds(), time.Since(asked).Seconds())
	revokes := func(r vaulttest.Request) bool { return strings.HasSuffix(r.Path, "/auth/token/revoke-self") }
	if vaulttest.Count(w.Proxy.Requests(), revokes) == 0 { // whose answer a busy machine may bring too late
		t.Errorf("the token was not revoked\n%s", w.Log())
	}
	thaw()
	w.Ended(0)
	w.StartDaemon()
	w.InSync(1)
}

// A secret-id that has become a FIFO is not waited for: logins fail and say so, the rest goes on, and the next good one is taken.
func TestSecretIDThatIsAPipe(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{TokenTTL: 2 * time.Second}) // it is read at each login
	right, err := os.ReadFile(w.SecretID)
	w.Must(err)
	w.Must(os.Remove(w.SecretID))
	w.Must(unix.Mkfifo(w.SecretID, 0o600))
	w.Is("prod", "degraded/login_refused", "secret_id_file", "is not a regular file", "put one there")
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.HangUp()
	w.Exits(1, "is not a regular file", "sync")
	w.Must(os.Remove(w.SecretID))
	w.Must(os.WriteFile(w.SecretID, right, 0o600))
	w.InSync(1)
}
