package e2e_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// As in production: the daemon is not root, and the files are its own.
func TestDaemonIsNotRoot(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w, secrets := world.Started(t, container.Options{User: 65534})
	w.Must(os.Chmod(w.File("prod"), 0o600))
	w.Blank("prod")
	w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
	w.Holds("prod", secrets["prod"])
	w.Ran(1, "end", "set")
	if strings.Contains(strings.ReplaceAll(w.Log(), `level=WARN msg="drift reverted"`, ""), "level=WARN") {
		t.Errorf("something is not to be had\n%s", w.Log())
	}
	_, second := w.NewSecret("prod")
	w.InSync(2)
	w.Holds("prod", second)

	// A file of root's, which it may write: the owner cannot be kept by a splice, so nlserver does it.
	w.Must(os.Chown(w.File("prod"), 0, 65534))
	w.Must(os.Chmod(w.File("prod"), 0o660))
	w.Blank("prod")
	w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 2 && s.Is("in_sync") })
	w.Holds("prod", second)
	var stat unix.Stat_t
	w.Must(unix.Stat(w.File("prod"), &stat))
	if stat.Uid != 0 || stat.Gid != 65534 || stat.Mode&0o777 != 0o660 {
		t.Errorf("owner %d:%d, mode %o", stat.Uid, stat.Gid, stat.Mode&0o777)
	}

	// One that it may not even read.
	w.Must(os.Chown(w.File("prod"), 0, 0))
	w.Must(os.Chmod(w.File("prod"), 0o600))
	w.Is("prod", "degraded/file_unreadable", "permission denied", w.File("prod"))
	w.Must(os.Chown(w.File("prod"), 65534, 65534))
	w.InSync(2)
}

// The same failure is told once, though nlserver puts the time before each line that it prints, and a login that waits
// tells until when.
func TestSameFailureIsToldOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, state string
		spoil       func(*world.World)
		mend        func(*world.World)
	}{
		{"nlserver fails", "pending", func(w *world.World) { w.Faults(`{"fail": "before"}`); w.NewSecret("prod") }, func(w *world.World) { w.Faults("") }},
		{"activation fails", "activation_pending", func(w *world.World) { w.Faults(`{"reload_fail": true}`); w.NewSecret("prod") },
			func(w *world.World) { w.Faults("") }},
		{"login fails", "degraded", func(w *world.World) {
			w.Stop()
			w.Proxy.Answer("/login", 503, "Vault is sealed")
			w.StartDaemon()
		}, func(w *world.World) { w.Proxy.Forward() }},
		{"Vault is down", "degraded", func(w *world.World) { w.Proxy.Down() }, func(w *world.World) { w.Must(w.Proxy.Up()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{})
			w.Logged("using polls only") // which is told in its own time
			before := alarms(w)
			c.spoil(w)
			w.Is("prod", c.state)
			for range 3 {
				time.Sleep(1100 * time.Millisecond) // another second on the clock
				w.Signal(syscall.SIGUSR1)
			}
			w.Pass()
			if told := alarms(w) - before; told != 1 {
				t.Errorf("told %d times\n%s", told, w.Log())
			}
			c.mend(w)
			w.Signal(syscall.SIGUSR1)
			w.Is("prod", "in_sync")
		})
	}
}

// alarms leaves out what a stop says on a machine so busy that Vault does not answer in time.
func alarms(w *world.World) int {
	return strings.Count(w.Log(), "level=ERROR") + strings.Count(w.Log(), "level=WARN") - strings.Count(w.Log(), "token not revoked")
}
