package faults_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// another is a second daemon over the same home, with a state directory, a control socket and a configuration of its own.
type another struct {
	container.Container
	w      *world.World
	daemon *container.Daemon
}

func secondOf(w *world.World, instances ...string) *another {
	a := &another{Container: *w.Container, w: w}
	a.Dir = w.Path("second")
	a.Config = w.Path("second.yaml")
	w.Must(os.Mkdir(a.Dir, 0o700))
	a.keeps(instances...)
	w.T.Cleanup(func() {
		if a.daemon != nil {
			a.daemon.Kill()
		}
	})
	return a
}

func (a *another) keeps(instances ...string) {
	a.w.T.Helper()
	a.w.Must(a.Reconfigure(a.w.Ctx, func(o *container.Options) { o.Instances, o.Campaign = instances, applyAtOnce }))
}

func (a *another) start() {
	a.w.T.Helper()
	d, err := a.Start(nil)
	a.w.Must(err)
	a.daemon, a.w.Daemons = d, append(a.w.Daemons, d) // the common questions are for its log as well
}

func (a *another) stop() {
	a.w.T.Helper()
	a.w.Must(a.daemon.Stop())
	a.daemon = nil
}

// refused demands that the daemon ends and says who keeps the file.
func (a *another) refused(file string) {
	a.w.T.Helper()
	select {
	case <-a.daemon.Ended():
	case <-time.After(world.Patience):
		a.w.T.Fatalf("it runs\n%s", a.daemon.Log())
	}
	if got := a.daemon.ExitStatus(); got != 1 {
		a.w.T.Errorf("it ended with status %d\n%s", got, a.daemon.Log())
	}
	world.Says(a.w.T, a.daemon.Log(), file, "another campaign-credsync keeps it (process "+strconv.Itoa(a.w.Running.PID())+")",
		"stop one of the two")
	a.daemon = nil
}

func (a *another) state(instance, state, says string) {
	a.w.T.Helper()
	a.w.Eventually("the second one's "+instance+" is "+state, func() bool {
		s, err := a.Asker().Status(a.w.Ctx)
		return err == nil && world.One(s, instance).State == state && strings.Contains(world.One(s, instance).LastError, says)
	})
}

// A second daemon, and a sync by hand, are kept away from an instance also where they have a state directory of their own.
// What only reads is not. When the first is killed, the second can start at once.
func TestSecondDaemonOnTheSameInstance(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	second := secondOf(w, "prod")
	second.start()
	second.refused(w.File("prod"))
	// Through a link it is the same file.
	w.Must(os.Symlink(w.Home, w.Path("link")))
	second.Home = w.Path("link")
	second.keeps("prod")
	second.start()
	second.refused(second.File("prod"))
	second.Home = w.Home
	second.keeps("prod")

	stdout, stderr, status := second.Command(w.Ctx, "sync")
	if status != 1 || !strings.Contains(stderr, "another campaign-credsync keeps it") {
		t.Errorf("sync ended with %d: %s%s", status, stdout, stderr)
	}
	if stdout, stderr, status = second.Command(w.Ctx, "diff"); status != 3 || !strings.Contains(stdout, "waits to be applied") {
		t.Errorf("diff ended with %d: %s%s", status, stdout, stderr)
	}
	w.Ran(1, "start", "set")
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])

	w.Kill()
	second.start()
	second.state("prod", "in_sync", "")
	first, err := w.Start(nil)
	w.Must(err)
	select {
	case <-first.Ended():
	case <-time.After(world.Patience):
		first.Kill()
	}
	if first.ExitStatus() != 1 {
		t.Errorf("the first one, started again, ended with status %d\n%s", first.ExitStatus(), first.Log())
	}
	second.stop()
	w.StartDaemon()
	w.InSync(1)
	w.Holds("prod", secrets["prod"])
}

// A daemon for each instance of one home is as it should be. A SIGHUP that would have one take the other's instance is
// refused, and the old configuration kept; the instance that goes can be taken over.
func TestDaemonForEachInstance(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Instances: []string{"prod", "stage"}, Campaign: applyAtOnce})
	_, prod := w.NewSecret("prod")
	_, stage := w.NewSecret("stage")
	w.Reconfigured(func(o *container.Options) { o.Instances = []string{"prod"} })
	second := secondOf(w, "stage")
	w.StartDaemon()
	second.start()
	w.InSync(1)
	second.state("stage", "in_sync", "")

	second.keeps("stage", "prod")
	w.Must(second.daemon.Signal(syscall.SIGHUP))
	w.Eventually("it is refused", func() bool {
		log := second.daemon.Log()
		return strings.Contains(log, "configuration not reloaded, keeping the old one") &&
			strings.Contains(log, "another campaign-credsync keeps it")
	})
	second.state("stage", "in_sync", "")
	w.Blank("stage")
	w.OnDisk("stage", stage)
	w.Blank("prod")
	w.OnDisk("prod", prod)
	w.InSync(1)

	// Stage goes from the second to the first, and back again.
	second.keeps("stage")
	second.stop()
	w.Reconfigured(func(o *container.Options) { o.Instances = []string{"prod", "stage"} })
	w.HangUp()
	w.InSync(1)
	second.start()
	second.refused(w.File("stage"))
	w.Reconfigured(func(o *container.Options) { o.Instances = []string{"prod"} })
	w.HangUp()
	second.start()
	second.state("stage", "in_sync", "")
	w.InSync(1)
	second.stop()
	w.Foreign["stage"] = world.ForeignBytes(w.Read("stage"))
}

// Whoever takes the name of the claim without being a campaign-credsync of the same people does not keep the daemon from its
// work; it is told of.
func TestStrangerTakesTheClaim(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w, _ := world.Started(t, container.Options{})
	name := claimOf(t, w)
	w.Stop()
	for _, c := range []struct {
		name string
		user int // whose the socket is; 0 for one where nobody listens
		says string
	}{
		{"of another user", 41007, "of user 41007 has it"},
		{"nobody listens", 0, "nobody answers there"},
	} {
		taken := -1
		w.Eventually("the name is free", func() bool { // a process that is being started holds what is closed a little longer
			var err error
			taken, err = asUser(c.user, func() (int, error) { return bound(name, c.user != 0) })
			return err == nil
		})
		w.StartDaemon()
		w.Pass()
		w.InSync(1)
		world.Says(t, w.Running.Log(), "a second campaign-credsync for the same file would not be noticed", c.says)
		if n := strings.Count(w.Running.Log(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings\n%s", n, w.Running.Log())
		}
		w.Stop()
		syscall.Close(taken)
	}
}

// bound is a socket of that name.
func bound(name string, listens bool) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: name})
	if err == nil && listens {
		err = syscall.Listen(fd, 8)
	}
	if err != nil {
		syscall.Close(fd)
	}
	return fd, err
}

// asUser makes a system call as another user. 0 is who runs this.
func asUser(id int, call func() (int, error)) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const keep = ^uintptr(0)
	if id != 0 { // of this thread alone
		if _, _, err := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, uintptr(id), keep); err != 0 {
			return -1, err
		}
		defer syscall.RawSyscall(syscall.SYS_SETRESUID, keep, 0, keep)
	}
	return call()
}

// claimOf finds the name by which the daemon has claimed its file.
func claimOf(t *testing.T, w *world.World) string {
	t.Helper()
	info, err := os.Stat(filepath.Dir(w.File("prod")))
	w.Must(err)
	stat := info.Sys().(*syscall.Stat_t)
	sockets, err := os.ReadFile("/proc/net/unix")
	w.Must(err)
	prefix := "@campaign-credsync/" + strconv.FormatUint(stat.Dev, 16) + "/" + strconv.FormatUint(stat.Ino, 10) + "/"
	for line := range strings.Lines(string(sockets)) {
		fields := strings.Fields(line)
		if name := fields[len(fields)-1]; strings.HasPrefix(name, prefix) {
			return name
		}
	}
	t.Fatalf("no socket %s…", prefix)
	return ""
}
