package faults_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/world"
)

// The daemon is stopped for a while, as by a suspend of the machine, and everything happens meanwhile.
func TestSuspend(t *testing.T) {
	t.Parallel()
	pause := 3 * time.Second
	if *full {
		pause = time.Minute
	}
	suspended := func(w *world.World, pause time.Duration, meanwhile func()) {
		w.Signal(syscall.SIGSTOP)
		meanwhile()
		time.Sleep(pause)
		w.Signal(syscall.SIGCONT)
	}
	t.Run("rotation and drift", func(t *testing.T) {
		t.Parallel()
		w, _ := world.Started(t, container.Options{})
		var secret string
		suspended(w, pause, func() {
			w.NewSecret("prod")
			w.Blank("prod")
			_, secret = w.NewSecret("prod")
		})
		w.InSync(3)
		w.Holds("prod", secret)
	})
	t.Run("token ends", func(t *testing.T) {
		t.Parallel()
		w, _ := world.Started(t, container.Options{TokenTTL: 2 * time.Second})
		var secret string
		suspended(w, pause, func() { _, secret = w.NewSecret("prod") })
		w.InSync(2)
		w.Holds("prod", secret)
	})
	// nlserver ends in its time, which the daemon learns when its own time for it is long over.
	t.Run("nlserver ends meanwhile", func(t *testing.T) {
		t.Parallel()
		const timeout = 20 * time.Second // so long may the machine take to stop the daemon
		w, _ := world.Started(t, container.Options{Campaign: "timeout: 20s"})
		w.Faults(`{"write_delay": "10m", "times": 1}`)
		_, secret := w.NewSecret("prod")
		w.WaitsAt("write_delay")
		suspended(w, timeout, func() {
			w.Release()
			w.Eventually("nlserver ends", func() bool { return w.CountRuns("end", "set") == 2 })
		})
		w.InSync(2)
		w.Holds("prod", secret)
		w.Ran(2, "end", "set")
		if strings.Contains(w.Log(), "campaign.timeout") {
			t.Errorf("it is called too slow\n%s", w.Log())
		}
	})
	t.Run("nlserver stops as well", func(t *testing.T) {
		t.Parallel()
		w, _ := world.Started(t, container.Options{Campaign: "timeout: 2s"})
		w.Faults(`{"write_delay": "10m", "times": 1}`)
		_, secret := w.NewSecret("prod")
		nlserver := w.WaitsAt("write_delay").PID
		suspended(w, pause, func() { syscall.Kill(nlserver, syscall.SIGSTOP) }) // unless it has been ended for its time
		w.Release()
		syscall.Kill(nlserver, syscall.SIGCONT)
		w.Eventually("it is applied in the end", func() bool {
			w.Signal(syscall.SIGUSR1)
			s, err := w.Asker().Status(w.Ctx)
			return err == nil && s.Applied(2)
		})
		w.Holds("prod", secret)
	})
}

// 64 descriptors are enough, and none is lost over rotations and reverts.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	programs := world.Plain()
	programs.Daemon = launcher(t, "ulimit -n 64", programs.Daemon)
	w, _ := world.Started(t, container.Options{Programs: programs, Settings: "drift: {max_reverts: 1000}"})
	descriptors := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Running.PID()))
		w.Must(err)
		return len(entries)
	}
	rounds := 20
	if *full {
		rounds = 200
	}
	rotatesAndReverts(w)
	before := descriptors()
	for range rounds {
		rotatesAndReverts(w)
	}
	w.Eventually("no descriptor is left open", func() bool { return descriptors() <= before })
	if strings.Contains(w.Log(), "too many open files") {
		t.Errorf("64 were not enough\n%s", w.Log())
	}
}

// Everything else on the machine comes first: rotations and reverts are done, only later.
func TestBusyMachine(t *testing.T) {
	t.Parallel()
	programs := world.Plain()
	programs.Daemon = launcher(t, "renice -n 19 -p $$ >/dev/null", programs.Daemon)
	w, _ := world.Started(t, container.Options{Programs: programs})
	rounds, above := 2, "10" // enough to starve it, and not the tests beside this one
	if *full {
		rounds, above = 20, "0"
	}
	for range runtime.NumCPU() {
		hog := exec.Command("nice", "-n", above, "sh", "-c", "while :; do :; done")
		hog.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		w.Must(hog.Start())
		t.Cleanup(func() { hog.Process.Kill(); hog.Wait() })
	}
	if nice, err := unix.Getpriority(unix.PRIO_PROCESS, w.Running.PID()); err != nil || nice != 20-19 {
		t.Fatalf("the daemon has priority %d, %v", nice, err)
	}
	for range rounds {
		version, secret := w.NewSecret("prod")
		w.InSync(version)
		w.Holds("prod", secret)
		w.Blank("prod")
		w.OnDisk("prod", secret)
		w.InSync(version)
	}
}

// 50 MiB of memory are enough, also for a secret and a configuration file of a megabyte and more. The limit is the daemon's:
// nlserver has needs of its own.
func TestLittleMemory(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	group := memoryGroup(t, 50<<20)
	programs := world.Plain()
	programs.Daemon = launcher(t, "echo $$ >'"+filepath.Join(group.dir, group.members)+"'", programs.Daemon)
	w := world.New(t, container.Options{Programs: programs, Settings: "drift: {max_reverts: 1000}"})
	nlserver := filepath.Join(w.Home, "bin", "nlserver")
	w.Must(os.Rename(nlserver, nlserver+".real"))
	leave := "echo $$ >'" + filepath.Join(group.outside, group.members) + "'"
	w.Must(os.WriteFile(nlserver, []byte("#!/bin/sh\n"+leave+"\nexec '"+nlserver+".real' \"$@\"\n"), 0o755))
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	for range 3 {
		rotatesAndReverts(w)
	}
	w.WriteSecret("prod", container.Credential("p8e-"+strings.Repeat("0123456789abcdef", 1<<16-1)))
	w.Pass()
	rotatesAndReverts(w)
	size := 1 << 20
	if *full {
		size = 16 << 20 // the largest that is taken
	}
	grow(w, size)
	rotatesAndReverts(w)
	if killed := group.kills(t); killed != 0 {
		t.Errorf("the kernel killed %d processes for their memory", killed)
	}
	t.Logf("at most %d MiB resident", memory(t, w.Running.PID(), "VmHWM")>>20)
}

// rotatesAndReverts demands one of each.
func rotatesAndReverts(w *world.World) {
	w.T.Helper()
	version, secret := w.NewSecret("prod")
	w.Signal(syscall.SIGUSR1)
	w.InSync(version)
	before := world.One(w.Pass(), "prod").RevertedTotal
	w.Blank("prod")
	w.AwaitStatus("the revert", func(s container.Status) bool {
		return world.One(s, "prod").RevertedTotal > before && s.Applied(version)
	})
	w.Holds("prod", secret)
}

// grow makes an instance's file that large.
func grow(w *world.World, size int) {
	w.T.Helper()
	w.Edits("prod", func(document []byte) []byte {
		end := []byte("</serverconf>")
		line := "  <!-- " + strings.Repeat("x", 1<<10) + " -->\n"
		// With room for what an apply adds.
		fill := strings.Repeat(line, (size-len(document)-(4<<10))/len(line))
		return bytes.Replace(document, end, append([]byte(fill), end...), 1)
	})
}

// limited is a control group with a limit of memory.
type limited struct {
	dir, outside string // itself, and one without the limit
	members      string // name of the file that takes members
	events       string // name of the file that tells of kills
}

func memoryGroup(t *testing.T, limit int) limited {
	t.Helper()
	name := fmt.Sprintf("credsync-test-%d", os.Getpid())
	for _, g := range []struct{ root, limit, swap, members, events string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cgroup.procs", "memory.oom_control"},
		{"/sys/fs/cgroup", "memory.max", "memory.swap.max", "cgroup.procs", "memory.events"},
	} {
		dir := filepath.Join(g.root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		if err := os.WriteFile(filepath.Join(dir, g.limit), []byte(strconv.Itoa(limit)), 0o644); err != nil {
			continue // no controller for memory
		}
		swap := strconv.Itoa(limit)
		if g.swap == "memory.swap.max" {
			swap = "0"
		}
		os.WriteFile(filepath.Join(dir, g.swap), []byte(swap), 0o644) // where swap is counted
		return limited{dir, g.root, g.members, g.events}
	}
	skip.Unable(t, "needs a control group with a limit of memory")
	return limited{}
}

func (l limited) kills(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, l.events))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, found := strings.CutPrefix(line, "oom_kill "); found {
			killed, err := strconv.Atoi(strings.TrimSpace(n))
			if err != nil {
				t.Fatal(err)
			}
			return killed
		}
	}
	t.Fatalf("no oom_kill in %s", text)
	return 0
}
