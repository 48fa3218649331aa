package world

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"campaign-credsync/test/container"
)

// StartDaemon starts a daemon and returns when it answers.
func (w *World) StartDaemon() {
	w.T.Helper()
	d, err := w.Start(nil)
	if err != nil {
		w.T.Fatal(err)
	}
	w.Running, w.Daemons = d, append(w.Daemons, d)
	w.Eventually("the daemon answers", func() bool {
		_, err := w.Asker().Status(w.Ctx)
		select {
		case <-d.Ended():
			w.T.Fatalf("the daemon ended with %d:\n%s", d.ExitStatus(), d.Log())
		default:
		}
		return err == nil
	})
}

// StartWriting starts a daemon that logs to a file of the test's; it is the test that ends it.
func (w *World) StartWriting(log *os.File) *os.Process {
	w.T.Helper()
	c := exec.Command(programs.Daemon, "--config", w.Config, "run")
	c.Stdout, c.Stderr = log, log
	w.Must(c.Start())
	w.T.Cleanup(func() { c.Process.Kill() })
	return c.Process
}

// Stop ends the daemon as systemd does.
func (w *World) Stop() {
	w.T.Helper()
	w.Signal(syscall.SIGTERM)
	w.Ended(0)
}

// Ended waits for the daemon's end and its exit status.
func (w *World) Ended(want int) {
	w.T.Helper()
	select {
	case <-w.Running.Ended():
	case <-time.After(Patience):
		w.T.Fatalf("the daemon does not end\n%s", w.Log())
	}
	if got := w.Running.ExitStatus(); got != want {
		w.T.Errorf("the daemon ended with status %d, want %d\n%s", got, want, w.Log())
	}
	w.Running = nil
}

// Kill ends the daemon without any warning.
func (w *World) Kill() {
	w.Running.Kill()
	w.Running = nil
}

func (w *World) Signal(s os.Signal) {
	w.T.Helper()
	if err := w.Running.Signal(s); err != nil {
		w.T.Fatal("the daemon is gone: ", err)
	}
}

// Log is what all daemons printed, the last one at the end.
func (w *World) Log() string {
	var all strings.Builder
	for _, d := range w.Daemons {
		all.WriteString(d.Log())
	}
	return all.String()
}

// RunCommand runs a command and notes what it prints.
func (w *World) RunCommand(args ...string) (stdout, stderr string, status int) {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.Ctx, Patience)
	defer cancel()
	stdout, stderr, status = w.Command(ctx, args...)
	fmt.Fprintf(&w.Printed, "%s%s", stdout, stderr)
	if strings.Contains(stderr, "panic:") {
		w.T.Errorf("%v panics: %s", args, stderr)
	}
	return stdout, stderr, status
}

// Pass has the daemon do a full check and returns the status after it.
func (w *World) Pass() container.Status {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.Ctx, Patience)
	defer cancel()
	s, err := w.Asker().Sync(ctx)
	if err != nil {
		w.T.Fatalf("ask for a pass: %v\n%s", err, w.Log())
	}
	return s
}

// Exits runs a command and demands its exit status and what it prints on either stream.
func (w *World) Exits(status int, says string, args ...string) string {
	w.T.Helper()
	stdout, stderr, got := w.RunCommand(args...)
	if got != status || !strings.Contains(stdout+stderr, says) {
		w.T.Errorf("%v ended with %d, want %d and %q:\n%s%s", args, got, status, says, stdout, stderr)
	}
	return stdout
}

// HangUp sends SIGHUP and waits until the daemon has taken the configuration over.
func (w *World) HangUp() {
	w.T.Helper()
	before := strings.Count(w.Running.Log(), "configuration reloaded")
	w.Signal(syscall.SIGHUP)
	w.Eventually("the configuration is reloaded", func() bool {
		return strings.Count(w.Running.Log(), "configuration reloaded") > before
	})
}
