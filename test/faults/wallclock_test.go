package faults_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// wallClock is the clock on the wall as one daemon sees it. The monotonic clock runs on untouched, as it does when somebody
// sets the time of a machine.
type wallClock struct {
	t      *testing.T
	path   string
	offset time.Duration
	daemon string // that goes by it
}

// offsetFile is what is added to package time of a daemon whose clock can be set: the offset in seconds is read from a
// file in memory. Neither faketime nor strace reaches the clock of a static executable.
const offsetFile = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var testOffset = new(int64)

func init() {
	name, _ := syscall.Getenv("CREDSYNC_TEST_CLOCK")
	if name == "" {
		return
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	shared, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	syscall.Close(fd)
	testOffset = (*int64)(unsafe.Pointer(&shared[0]))
}

func offsetForTests() int64 { return atomic.LoadInt64(testOffset) }
`

// settableDaemon builds the daemon as it is, with a package time whose clock on the wall can be set. It costs half a minute until
// the compiler has it in its cache.
func settableDaemon(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(from, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const begin, read = "\nfunc Now() Time {\n", "\tsec, nsec, mono := runtimeNow()\n"
	before, after, found := strings.Cut(string(text), begin+read)
	if !found {
		t.Fatalf("%s/time.go reads the clock in another way than this test knows", from)
	}
	overlay := map[string]string{}
	for name, text := range map[string]string{
		"time.go":         before + begin + read + "\tsec += offsetForTests()\n" + after,
		"tests_offset.go": offsetFile,
	} {
		overlay[filepath.Join(from, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := filepath.Join(dir, "campaign-credsync")
	build := exec.Command("go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-o", daemon,
		"campaign-credsync/cmd/campaign-credsync")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a daemon whose clock can be set: %v: %s", err, out)
	}
	return daemon
}

// newWallClock is a clock that shows the right time. daemon is a settableDaemon.
func newWallClock(t *testing.T, daemon string) *wallClock {
	t.Helper()
	c := &wallClock{t: t, path: filepath.Join(t.TempDir(), "offset")}
	if err := os.WriteFile(c.path, make([]byte, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	c.daemon = launcher(t, `export CREDSYNC_TEST_CLOCK='`+c.path+`'`, daemon)
	return c
}

// launcher is a program that runs some commands of the shell and becomes the daemon then.
func launcher(t *testing.T, commands, daemon string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "launch")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nset -e\n"+commands+"\nexec '"+daemon+"' \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// programs are those of a world with this clock.
func (c *wallClock) programs() container.Programs {
	programs := world.Plain()
	programs.Daemon = c.daemon
	return programs
}

// move sets the clock so far from the right time.
func (c *wallClock) move(offset time.Duration) {
	c.t.Helper()
	c.offset = offset.Truncate(time.Second)
	file, err := os.OpenFile(c.path, os.O_WRONLY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(c.offset/time.Second)), 0); err != nil {
		c.t.Fatal(err)
	}
}

// set sets the clock to a time.
func (c *wallClock) set(to time.Time) {
	c.t.Helper()
	c.move(time.Until(to))
}

func (c *wallClock) now() time.Time { return time.Now().Add(c.offset).Round(0) }

// lastCheck is when, by the daemon's clock, it looked at an instance's file last.
func lastCheck(w *world.World, instance string) time.Time {
	w.T.Helper()
	var status struct {
		Instances []struct {
			Name      string
			LastCheck time.Time `json:"last_check"`
		}
	}
	stdout, _, _ := w.RunCommand("status", "--json")
	w.Must(json.Unmarshal([]byte(stdout), &status))
	for _, in := range status.Instances {
		if in.Name == instance {
			return in.LastCheck
		}
	}
	w.T.Fatalf("no instance %s in %s", instance, stdout)
	return time.Time{}
}
