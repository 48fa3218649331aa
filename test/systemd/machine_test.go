//go:build systemd

package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// machine is a container with a systemd of its own as process 1. The root file system it was booted from stays as it
// is: what the container writes goes into memory and ends with it.
type machine struct {
	leader  int // its process 1, by the number that it has out here
	user    int // whose commands are run in it
	console *console
	ended   chan struct{} // closed when it has
	status  int           // the exit status of process 1, then
}

// console keeps what systemd and nspawn print. It may be read while they do.
type console struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.String()
}

// boot boots a container that is powered off at the end of the test. binds are --bind= and --bind-ro= of systemd-nspawn.
func boot(t *testing.T, rootfs string, binds ...string) *machine {
	const powerOff = 34 + 4 // SIGRTMIN+4, behind those that the C library keeps: systemd takes it as "power off now"
	name := machineName()
	m := launch(t, name, powerOff, append([]string{"--directory=" + rootfs, "--volatile=overlay", "--boot", "--settings=no", "--machine=" + name}, binds...)...)
	var state string
	await(t, "the end of the boot", patience, func() bool {
		got := m.try(t, "systemctl", "is-system-running", "--wait")
		state = strings.TrimSpace(got.stdout)
		return state == "running" || state == "degraded"
	})
	if state == "degraded" {
		t.Logf("some units of the container have failed:\n%s", m.try(t, "systemctl", "--failed", "--no-legend").stdout)
	}
	return m
}

// named counts the names that were given.
var named atomic.Int32

// machineName is one for another container.
func machineName() string { return fmt.Sprintf("credsync-%d-%d", os.Getpid(), named.Add(1)) }

// launch starts a container of that name, by the arguments of systemd-nspawn that say of what. end is the signal that ends its process 1, which it is
// sent at the end of the test.
//
// A process id namespace around it all makes sure that nothing is left when this process is killed: systemd-nspawn
// itself leaves its container behind when it is killed.
func launch(t *testing.T, name string, end syscall.Signal, arguments ...string) *machine {
	command := []string{"sh", "-c", enterGroups, "sh"}
	command = append(command, controlGroups(t, name)...)
	command = append(command, "--",
		"unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
		"systemd-nspawn", "--register=no", "--keep-unit",
		"--console=pipe", "--link-journal=no", "--resolv-conf=off", "--timezone=off")
	command = append(command, arguments...)

	m := &machine{console: &console{}, ended: make(chan struct{})}
	nspawn := exec.Command(command[0], command[1:]...)
	nspawn.Stdout, nspawn.Stderr = m.console, m.console
	// Only the unified hierarchy inside, also where the machine has the old ones too: systemd 256 and later insist on it.
	nspawn.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	nspawn.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	nspawn.WaitDelay = 5 * time.Second
	if err := nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(m.ended)
		nspawn.Wait()
		m.status = nspawn.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		m.end(t, nspawn, end)
		// What nspawn leaves when it had to be killed, and where /run is a disk.
		os.RemoveAll("/run/systemd/nspawn/propagate/" + name)
	})

	await(t, "process 1 of the container", patience, func() bool {
		if m.hasEnded() {
			t.Fatalf("the container does not start:\n%s", m.console)
		}
		m.leader = leaderBelow(nspawn.Process.Pid)
		return m.leader != 0
	})
	return m
}

// end ends it by the signal; a container that does not follow is killed.
func (m *machine) end(t *testing.T, nspawn *exec.Cmd, by syscall.Signal) {
	if m.leader != 0 && !m.hasEnded() {
		syscall.Kill(m.leader, by)
		select {
		case <-m.ended:
			return
		case <-time.After(patience):
			t.Errorf("the container does not end:\n%s", tail(m.console.String(), 30))
		}
	}
	nspawn.Process.Kill() // and with it, by the kernel, the whole process id namespace
	<-m.ended
}

func (m *machine) hasEnded() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

// leaderBelow finds the descendant of a process that is number 1 in the innermost of three process id namespaces: ours,
// the one made by unshare, the container's. 0 means that there is none yet.
func leaderBelow(pid int) int {
	type process struct{ pid, parent, innermost, namespaces int }
	var all []process
	entries, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, entry := range entries {
		status, err := os.ReadFile(entry)
		if err != nil {
			continue // it has ended
		}
		p := process{}
		p.pid, _ = strconv.Atoi(strings.Split(entry, "/")[2])
		p.parent, _ = strconv.Atoi(field(string(status), "PPid:"))
		numbers := strings.Fields(field(string(status), "NSpid:"))
		if len(numbers) > 0 {
			p.innermost, _ = strconv.Atoi(numbers[len(numbers)-1])
		}
		p.namespaces = len(numbers)
		all = append(all, p)
	}
	family := []int{pid}
	depth := 0
	for range 4 { // unshare, nspawn, its helper, the leader
		for _, p := range all {
			if p.pid == pid {
				depth = p.namespaces
			}
			if slices.Contains(family, p.parent) && !slices.Contains(family, p.pid) {
				family = append(family, p.pid)
			}
		}
	}
	for _, p := range all {
		if slices.Contains(family, p.pid) && p.innermost == 1 && p.namespaces == depth+2 {
			return p.pid
		}
	}
	return 0
}

// field returns what follows name on its line in a file such as /proc/1/status.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// outcome is how a command in the container ended.
type outcome struct {
	stdout, stderr string
	status         int
}

func (o outcome) String() string {
	return fmt.Sprintf("exit status %d\n%s%s", o.status, o.stdout, o.stderr)
}

// start starts a command in the container; what it returns waits for its end.
func (m *machine) start(t *testing.T, command ...string) (wait func() outcome) {
	t.Helper()
	// Not bound to the test's context, which has ended when cleanups ask for the journal.
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	enter := []string{"--target", strconv.Itoa(m.leader), "--all"}
	if m.user != 0 {
		enter = append(enter, fmt.Sprintf("--setuid=%d", m.user), fmt.Sprintf("--setgid=%d", m.user))
	}
	c := exec.CommandContext(ctx, "nsenter", append(append(enter, "--"), command...)...)
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"}
	c.Dir = "/"
	c.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Start(); err != nil {
		cancel()
		t.Fatalf("%s: %v", command[0], err)
	}
	return func() outcome {
		t.Helper()
		defer cancel()
		err := c.Wait()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatalf("%s: %v", command[0], err)
		}
		return outcome{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
	}
}

// try runs a command that may fail.
func (m *machine) try(t *testing.T, command ...string) outcome {
	t.Helper()
	return m.start(t, command...)()
}

// run runs a command that must not fail and returns its standard output.
func (m *machine) run(t *testing.T, command ...string) string {
	t.Helper()
	o := m.try(t, command...)
	if o.status != 0 {
		t.Fatalf("%s: %v", strings.Join(command, " "), o)
	}
	return o.stdout
}

// path is where a file of the container is found from outside. No component may be an absolute symbolic link.
func (m *machine) path(inside string) string {
	return fmt.Sprintf("/proc/%d/root%s", m.leader, inside)
}

func (m *machine) read(t *testing.T, inside string) string {
	t.Helper()
	text, err := os.ReadFile(m.path(inside))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// write writes a file, owned by root, and its directory where that is missing.
func (m *machine) write(t *testing.T, inside, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(inside)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path(inside), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(m.path(inside), mode); err != nil {
		t.Fatal(err)
	}
}

// await asks until it is so, and ends the test after limit.
func await(t *testing.T, what string, limit time.Duration, so func() bool) {
	t.Helper()
	deadline := time.After(limit)
	for !so() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			t.Fatalf("waited %s in vain for %s", limit, what)
		}
	}
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
