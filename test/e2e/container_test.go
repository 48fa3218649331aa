package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// below is a container without systemd: process numbers and a /proc of its own.
type below struct {
	*world.World
	log     string // its file
	command *exec.Cmd
	ended   chan struct{}
}

// startBelow starts a script as process 1, with the daemon's executable in $0 and its configuration in $1.
func startBelow(w *world.World, script string) *below {
	w.T.Helper()
	log, err := os.Create(w.Path("log"))
	w.Must(err)
	defer log.Close()
	b := &below{World: w, log: log.Name(), ended: make(chan struct{})}
	b.command = exec.Command("bash", "-c", "mount -t proc proc /proc\n"+script, w.Daemon(), w.Config)
	b.command.Stdout, b.command.Stderr = log, log
	b.command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	w.Must(b.command.Start())
	go func() {
		defer close(b.ended)
		b.command.Wait()
	}()
	w.T.Cleanup(func() {
		b.command.Process.Kill()
		<-b.ended
		w.Printed.WriteString(b.said())
	})
	return b
}

// inside is a file of the container's /proc.
func (b *below) inside(format string, args ...any) string {
	return fmt.Sprintf("/proc/%d/root/proc/", b.command.Process.Pid) + fmt.Sprintf(format, args...)
}

// daemon is the number inside of the process that does the daemon's work, 0 when there is none.
func (b *below) daemon() (pid int) {
	for n := 1; n < 1000; n++ {
		arguments, err := os.ReadFile(b.inside("%d/cmdline", n))
		if err == nil && strings.HasPrefix(string(arguments), b.Daemon()+"\x00--config\x00") {
			pid = n // a later one is the child of an earlier one
		}
	}
	return pid
}

func (b *below) kill(signal string, pid int) {
	b.T.Helper()
	b.Run("nsenter", "--target", fmt.Sprint(b.command.Process.Pid), "--pid", "--mount", "sh", "-c", fmt.Sprintf("kill -%s %d", signal, pid))
}

func (b *below) exits(status int) {
	b.T.Helper()
	b.Eventually("the end of process 1", func() bool {
		select {
		case <-b.ended:
			return true
		default:
			return false
		}
	})
	if got := b.command.ProcessState.ExitCode(); got != status {
		b.T.Errorf("process 1 ended with %d, want %d\n%s", got, status, b.said())
	}
}

func (b *below) said() string {
	b.T.Helper()
	text, err := os.ReadFile(b.log)
	b.Must(err)
	return string(text)
}

var logged = regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* level=`)

const (
	asProcessOne = `exec "$0" --config "$1" run`
	belowBash    = `trap 'kill -TERM $daemon' TERM; "$0" --config "$1" run & daemon=$!; wait; wait $daemon`
)

// In a container without systemd, below a bash that is process 1 as Campaign's images have it, or as process 1 itself: a version is
// applied and activated, a module whose parent has ended is no zombie when it ends, the log has times, and SIGTERM to process 1 ends it.
func TestContainerWithoutSystemd(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	for name, script := range map[string]string{"below bash": belowBash, "as process 1": asProcessOne} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{Campaign: "activate: {restart: [web]}"})
			_, secret := w.NewSecret("prod")
			w.Faults(`{"on": ["restart"], "fork_child": "10m"}`)
			b := startBelow(w, script)
			w.InSync(1)
			w.Holds("prod", secret)
			module := 0
			for _, r := range b.runs() {
				if r.Event == "child" {
					module = r.ChildPID
				}
			}
			if parent, err := os.ReadFile(b.inside("%d/status", module)); err != nil || !strings.Contains(string(parent), "PPid:\t1\n") {
				t.Fatalf("module %d: %v: %s\n%s", module, err, parent, b.said())
			}
			b.kill("KILL", module)
			w.Eventually("somebody waits for the module", func() bool {
				_, err := os.Stat(b.inside("%d", module))
				return os.IsNotExist(err)
			})
			w.Blank("prod")
			w.OnDisk("prod", secret)
			b.kill("HUP", b.daemon())
			w.Eventually("the reload", func() bool { return strings.Contains(b.said(), "configuration reloaded") })

			w.Must(b.command.Process.Signal(syscall.SIGTERM))
			b.exits(0)
			for line := range strings.Lines(b.said()) {
				if !logged.MatchString(line) {
					t.Errorf("without a time: %s", line)
				}
			}
		})
	}
}

func (b *below) runs() []container.Run {
	b.T.Helper()
	runs, err := b.Runs()
	b.Must(err)
	return runs
}

// As process 1 it ends as the daemon below it does.
func TestProcessOneEndsWithTheDaemon(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{})
	config, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, []byte("vault: 1\n"), 0o600))
	startBelow(w, asProcessOne).exits(2)

	w.Must(os.WriteFile(w.Config, config, 0o600))
	w.NewSecret("prod")
	b := startBelow(w, asProcessOne)
	w.InSync(1)
	b.kill("KILL", b.daemon())
	b.exits(128 + int(syscall.SIGKILL))
	w.StartDaemon()
	w.InSync(1)
}
