package nlserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"campaign-credsync/internal/regularfile"
)

// After failuresBeforePause failed restarts of a module in a row it is restarted at most every restartPause: each may have taken
// down what still worked.
const (
	failuresBeforePause = 3
	restartPause        = 10 * time.Minute
)

// restarts remembers the newest restart of each module, also of one that took longer than its limit.
type restarts struct {
	mu     sync.Mutex
	latest map[string]*restart // by module
}

// restart is one run of "nlserver restart". ended is closed at its end; what is below belongs to the lock of restarts.
type restart struct {
	began    time.Time
	ended    chan struct{}
	failure  string // of one that has ended; empty after status 0
	taken    bool   // its outcome was returned
	failures int    // in a row, with those before it
}

func (r *restart) running() bool {
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

// pausedError says that a module is not restarted yet.
type pausedError struct {
	module string
	until  time.Time
}

func (e pausedError) Error() string {
	return fmt.Sprintf("nlserver restart %s failed %d times in a row; it is tried again every %s, next at %s, or after SIGHUP",
		e.module, failuresBeforePause, restartPause, e.until.Format(time.TimeOnly))
}

func (e pausedError) RetryAt() time.Time { return e.until }

// restart restarts a module and waits for the end of that, up to the timeout. nlserver may fork the module as a child of its own,
// which must outlive this process and print at any time: so it gets a session and no descriptor of ours, and is never signalled.
// One that takes longer runs on; until it has ended no other of this module is begun.
func (n *Server) restart(ctx context.Context, module string, since time.Time) error {
	step := "nlserver restart " + module
	failures, done, err := n.mayRestart(step, module, since)
	if err != nil || done {
		return err
	}
	if n.outlived(module) {
		return fmt.Errorf("%s: one that an earlier campaign-credsync began has not ended yet; no other is begun before", step)
	}
	env, err := n.environment(ctx, redactUnknown)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r := &restart{began: time.Now(), ended: make(chan struct{}), failures: failures + 1} // until it has worked
	if err := n.start(module, env, r); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	defer commandBegan(n.cfg.Timeout)()

	timer := time.NewTimer(n.cfg.Timeout)
	defer timer.Stop()
	select {
	case <-r.ended:
	case <-timer.C:
		if r.running() { // else this process was suspended
			return fmt.Errorf("%s: still running after %s, the limit of campaign.timeout; it is left to run, and no other is begun before it has ended: %w",
				step, n.cfg.Timeout, context.DeadlineExceeded)
		}
	}
	n.restarts.mu.Lock()
	defer n.restarts.mu.Unlock()
	r.taken = true
	if r.failure != "" {
		return fmt.Errorf("%s: %s (its output is not read, as the module may inherit it; to see it, run it by hand as this user, after env_script)",
			step, r.failure)
	}
	return nil
}

// mayRestart tells why a module must not be restarted now, that it was since (done), or how often that has failed.
func (n *Server) mayRestart(step, module string, since time.Time) (failures int, done bool, err error) {
	n.restarts.mu.Lock()
	defer n.restarts.mu.Unlock()
	if latest := n.restarts.latest[module]; latest != nil {
		failures = latest.failures
		pausedUntil := latest.began.Add(restartPause)
		switch {
		case latest.running():
			return 0, false, fmt.Errorf("%s: the one begun at %s has not ended yet; no other is begun before", step, latest.began.Format(time.TimeOnly))
		case !latest.taken && latest.failure == "" && latest.began.After(since):
			latest.taken = true
			return 0, true, nil
		case failures >= failuresBeforePause && time.Now().Before(pausedUntil):
			return 0, false, pausedError{module, pausedUntil}
		}
	}
	return failures, false, nil
}

// start begins a restart when it is on record which process that is, so that a daemon that comes after a kill does not begin a
// second one: a shell waits for a word from us, then becomes nlserver. Without the word it ends.
func (n *Server) start(module string, env []string, r *restart) error {
	closeForeignDescriptors()
	cmd := exec.Command("/bin/sh", "-c", `read -r credsync_word && exec "$0" restart "$1" </dev/null`, n.cfg.Executable, module)
	cmd.Dir, cmd.Env = n.cfg.Home, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // stdout and stderr are /dev/null
	word, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	n.restarts.mu.Lock()
	n.restarts.latest[module] = r
	n.restarts.mu.Unlock()
	// After a crash of the machine there is no such process, so nothing has to be on disk.
	note := fmt.Sprintf("%d %s\n", cmd.Process.Pid, startOf(cmd.Process.Pid))
	if err := os.WriteFile(n.noteFile(module), []byte(note), 0o600); err != nil {
		n.cfg.Logger.Warn("which process restarts a module is not remembered; a daemon that comes after this one may start a second",
			"module", module, "reason", err)
	}
	_, err = io.WriteString(word, "go\n")
	word.Close()
	go n.awaitRestart(module, cmd, r) // ends with the restart, which may be after this process
	return err
}

func (n *Server) awaitRestart(module string, cmd *exec.Cmd, r *restart) {
	err := cmd.Wait()
	os.Remove(n.noteFile(module)) // one that is left tells of a process that is no more
	took := time.Since(r.began)
	n.restarts.mu.Lock()
	switch code := cmd.ProcessState.ExitCode(); {
	case err == nil:
		r.failures = 0
	case code == 126 || code == 127: // the shell's: no module was touched, so it does not count
		r.failures--
		r.failure = fmt.Sprintf("nlserver could not be started (%v)", err)
	default:
		r.failure = err.Error()
	}
	n.restarts.mu.Unlock()
	close(r.ended)
	if took > n.cfg.Timeout {
		n.cfg.Logger.Warn("a restart that took longer than its limit has ended", "module", module, "duration", took, "exit", cmd.ProcessState.ExitCode())
	}
}

// noteFile holds which process restarts a module: its number and when it was started.
func (n *Server) noteFile(module string) string {
	return filepath.Join(n.cfg.StateDir, module+".restart")
}

// outlived reports whether a restart of a module that another daemon began still runs.
func (n *Server) outlived(module string) bool {
	text, err := regularfile.Read(n.noteFile(module), 100)
	if err != nil {
		return false
	}
	var pid int
	var start string
	_, err = fmt.Sscan(string(text), &pid, &start)
	return err == nil && start != "-" && start == startOf(pid)
}

// startOf tells when a process was started, by which it differs from a later one of the same number; "-" if it has ended.
func startOf(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // after the name, which may hold anything
	if err != nil || len(fields) < 20 || fields[0] == "Z" {
		return "-"
	}
	return fields[19]
}

// Retry forgets, by an operator's word, what keeps it from trying: which option is offered, and that restarts failed.
func (n *Server) Retry() {
	n.forgetOption()
	n.restarts.mu.Lock()
	defer n.restarts.mu.Unlock()
	for _, r := range n.restarts.latest {
		r.failures = 0
	}
}

// TakeOver has n go on with what before knows of restarts. n is not used yet.
func (n *Server) TakeOver(before *Server) { n.restarts = before.restarts }
