package faults_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// startIn starts a daemon in a directory, where it may dump as much core as it likes, with more environment. It prints to a
// file of the world.
func startIn(w *world.World, dir string, env ...string) *exec.Cmd {
	w.T.Helper()
	log, err := os.OpenFile(w.Path("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	w.Must(err)
	defer log.Close()
	daemon := exec.Command("sh", "-c", `ulimit -c unlimited; exec "$@"`, "sh", w.Daemon(), "--config", w.Config, "run")
	daemon.Dir, daemon.Env = dir, append(os.Environ(), env...)
	daemon.Stdout, daemon.Stderr = log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.Must(daemon.Start())
	w.T.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	w.AwaitStatus("it answers", func(container.Status) bool { return true })
	return daemon
}

// A daemon that dies of a signal which makes others dump core leaves none, although its limit allows it: Go's runtime takes
// these signals, says what its goroutines did, and exits.
func TestNoCoreHoldsTheSecret(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{
		syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGSYS, syscall.SIGFPE,
	} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{Programs: world.Plain()})
			_, secret := w.NewSecret("prod")
			leak := newCanary(w, secret)
			dir := w.Path("cores")
			w.Must(os.Mkdir(dir, 0o700))
			daemon := startIn(w, dir)
			w.InSync(1)
			w.Must(daemon.Process.Signal(signal))
			daemon.Wait()
			if status := daemon.ProcessState.Sys().(syscall.WaitStatus); status.CoreDump() {
				t.Errorf("%v: a core was dumped", status)
			}
			entries, err := os.ReadDir(dir)
			w.Must(err)
			for _, e := range entries {
				t.Errorf("%s is left", e.Name())
			}
			leak.absentBelow("after the end")
			w.StartDaemon()
			w.InSync(1)
		})
	}
}

// What docs/hardening.md says of memory: nothing keeps the secret once it is applied, so Go's next collection frees every copy;
// and where freed memory is overwritten (GODEBUG=clobberfree=1), no copy is left in the process. A collection comes two
// minutes after the last one at the latest.
func TestMemoryForgetsTheSecret(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	environment := []string{"GODEBUG=clobberfree=1"}
	if !*full {
		environment = append(environment, "GOGC=1") // collections come with a little work, and need not be awaited
	}
	w := world.New(t, container.Options{Programs: world.Plain()})
	w.Faults(`{"write_delay": "10m", "times": 1}`)
	_, secret := w.NewSecret("prod")
	daemon := startIn(w, w.Dir, environment...)
	w.WaitsAt("write_delay")
	if found := copies(w, daemon.Process.Pid, secret); found == 0 { // the daemon has it: it has just given it to nlserver
		t.Error("the test looks in vain: no copy is found while there has to be one")
	} else {
		t.Logf("%d copies while nlserver runs", found)
	}
	w.Release()
	w.InSync(1)
	left := -1
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline) && left != 0; time.Sleep(2 * time.Second) {
		if !*full {
			w.Pass()
		}
		left = copies(w, daemon.Process.Pid, secret)
	}
	if left != 0 {
		t.Errorf("%d copies are left in memory", left)
	}
	w.Blank("prod") // what was forgotten is not needed for a revert
	w.OnDisk("prod", secret)
	w.Must(daemon.Process.Signal(syscall.SIGTERM))
	w.Must(daemon.Wait())
}

// copies counts how often a text, or its base64, is in the memory of a process.
func copies(w *world.World, pid int, text string) (n int) {
	w.T.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	w.Must(err)
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	w.Must(err)
	defer memory.Close()
	base64 := newCanary(w, text).forms["base64"]
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var rights string
		fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights)
		if !strings.HasPrefix(rights, "r") || strings.HasPrefix(filepath.Base(line), "[v") {
			continue
		}
		part := make([]byte, to-from)
		read, _ := memory.ReadAt(part, from) // the little that cannot be read is not the heap
		part = part[:read]
		n += bytes.Count(part, []byte(text)) + bytes.Count(part, []byte(base64))
	}
	return n
}
