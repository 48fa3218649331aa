package sinks

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"
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
func (n *NLServer) restart(ctx context.Context, module string, since time.Time) error {
	step := "nlserver restart " + module
	n.restarts.mu.Lock()
	latest := n.restarts.latest[module]
	failures := 0
	if latest != nil {
		failures = latest.failures
		pausedUntil := latest.began.Add(restartPause)
		late := !latest.taken
		switch {
		case latest.running():
			n.restarts.mu.Unlock()
			return fmt.Errorf("%s: the one begun at %s has not ended yet; no other is begun before", step, latest.began.Format(time.TimeOnly))
		case late && latest.failure == "" && latest.began.After(since):
			latest.taken = true
			n.restarts.mu.Unlock()
			return nil
		case failures >= failuresBeforePause && time.Now().Before(pausedUntil):
			n.restarts.mu.Unlock()
			return pausedError{module, pausedUntil}
		}
	}
	n.restarts.mu.Unlock()

	env, err := n.environment(ctx, redactUnknown)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	closeForeignDescriptors()
	cmd := exec.Command(n.executable, "restart", module)
	cmd.Dir, cmd.Env = n.home, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}                                 // stdin, stdout and stderr are /dev/null
	r := &restart{began: time.Now(), ended: make(chan struct{}), failures: failures + 1} // until it has worked
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", step, n.explainStart(err))
	}
	n.restarts.mu.Lock()
	n.restarts.latest[module] = r
	n.restarts.mu.Unlock()
	go n.awaitRestart(module, cmd, r) // ends with the restart, which may be after this process

	timer := time.NewTimer(n.timeout)
	defer timer.Stop()
	select {
	case <-r.ended:
	case <-timer.C:
		if r.running() { // else this process was suspended
			return fmt.Errorf("%s: still running after %s, the limit of campaign.timeout; it is left to run, and no other is begun before it has ended: %w",
				step, n.timeout, context.DeadlineExceeded)
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

func (n *NLServer) awaitRestart(module string, cmd *exec.Cmd, r *restart) {
	err := cmd.Wait()
	took := time.Since(r.began)
	n.restarts.mu.Lock()
	if err != nil {
		r.failure = err.Error()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			r.failure = exit.Error()
		}
	} else {
		r.failures = 0
	}
	n.restarts.mu.Unlock()
	close(r.ended)
	if took > n.timeout {
		n.logger.Warn("a restart that took longer than its limit has ended", "module", module, "duration", took, "exit", cmd.ProcessState.ExitCode())
	}
}

// Retry forgets, by an operator's word, what keeps it from trying: which option is offered, and that restarts failed.
func (n *NLServer) Retry() {
	n.ForgetOption()
	n.restarts.mu.Lock()
	defer n.restarts.mu.Unlock()
	for _, r := range n.restarts.latest {
		r.failures = 0
	}
}

// TakeOver has n go on with what before knows of restarts. n is not used yet.
func (n *NLServer) TakeOver(before *NLServer) { n.restarts = before.restarts }
