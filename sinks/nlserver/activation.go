package nlserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"campaign-credsync/internal/credential"
)

// multiInstance are the modules that serve all instances of a container; they take no @instance.
var multiInstance = []string{"web", "syslogd", "trackinglogd", "watchdog"}

// Steps returns the steps that make Campaign's processes use an instance's new credential, in the order in which they are
// to be taken. A reload makes the web module read its configuration again; other modules need a restart. A module that is named with
// its @instance is left as it is.
func Steps(reload bool, modules []string, instance string) []credential.Step {
	var steps []credential.Step
	if reload {
		steps = append(steps, credential.Step{Kind: credential.StepReload})
	}
	for _, module := range modules {
		if !strings.Contains(module, "@") && !slices.Contains(multiInstance, module) {
			module += "@" + instance
		}
		if step := (credential.Step{Kind: credential.StepRestart, Module: module}); !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	return steps
}

// reloadGrace is what a reload under way has at a stop before it is cut short.
const reloadGrace = 1500 * time.Millisecond

// Activate takes one step made by Steps. It returns after the configured timeout at the latest. When ctx has ended it begins nothing;
// a reload that was begun has reloadGrace left, and a restart is not cut short. A step may be taken again: it ends in the same state.
// Where a restart took longer, one that was begun after since and has ended well meanwhile is not repeated. One call at a time.
func (b *Binary) Activate(ctx context.Context, step credential.Step, since time.Time) error {
	if step.Kind == credential.StepRestart {
		return b.restart(ctx, step.Module, since)
	}
	if step.Kind != credential.StepReload {
		return fmt.Errorf("activation has no step %q", step)
	}
	env, err := b.environment(ctx)
	if err = cmp.Or(err, context.Cause(ctx)); err != nil {
		return err
	}
	begun, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(reloadGrace, cut) })()
	_, _, err = b.nlserver(begun, "nlserver config -reload", child{args: []string{"config", "-reload"}, env: env})
	b.ran("", doReload, err)
	return err
}

// After failuresBeforePause failed restarts of a module in a row it is restarted at most every restartPause: each may have taken
// down what still worked.
const (
	failuresBeforePause = 3
	restartPause        = 10 * time.Minute
)

// restart is one run of "nlserver restart".
type restart struct {
	began    time.Time
	failures int           // in a row, with this one if it fails
	ended    chan struct{} // closed at its end
	err      error         // of one that has ended
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
	return fmt.Sprintf("nlserver restart %s failed %d times in a row; it is tried again every %s, next at %s, or after systemctl reload campaign-credsync",
		e.module, failuresBeforePause, restartPause, e.until.Format(time.TimeOnly))
}

// RetryAt tells when it is restarted.
func (e pausedError) RetryAt() time.Time { return e.until }

// restart restarts a module and waits for the end of that, up to the timeout. nlserver may fork the module as a child of its own,
// which must outlive this process and print at any time: so it gets a session and no descriptor of ours, and is never signalled.
// One that takes longer runs on; until it has ended no other of this module is begun.
func (b *Binary) restart(ctx context.Context, module string, since time.Time) error {
	last, failures := b.restarts[module], 1
	if last != nil && last.running() || b.outlived(module) {
		return fmt.Errorf("nlserver restart %s: an earlier one has not ended yet; no other is begun before", module)
	}
	if last != nil && last.err == nil && last.began.After(since) {
		delete(b.restarts, module)
		return nil
	}
	if last != nil && last.err != nil {
		failures += last.failures
		until := last.began.Add(restartPause)
		if last.failures >= failuresBeforePause && time.Now().Before(until) {
			return pausedError{module, until}
		}
	}
	env, err := b.environment(ctx)
	if err = cmp.Or(err, context.Cause(ctx)); err != nil {
		return err
	}
	r, err := b.start(module, env, nil)
	if err != nil {
		return fmt.Errorf("nlserver restart %s: %w", module, err)
	}
	r.failures, b.restarts[module] = failures, r
	name, instance, _ := strings.Cut(module, "@")
	if b.cfg.Meter != nil {
		b.cfg.Meter.Restarted(instance, name)
	}
	defer countCommand(b.cfg.Timeout)()
	select {
	case <-r.ended:
	case <-time.After(b.cfg.Timeout):
		b.ran(instance, doRestart, context.DeadlineExceeded)
		return fmt.Errorf("nlserver restart %s: still running after %s, the limit of campaign.timeout; it is left to run, and no other is begun before it has ended: %w",
			module, b.cfg.Timeout, context.DeadlineExceeded)
	}
	b.ran(instance, doRestart, r.err)
	if r.err != nil {
		if exit, _ := errors.AsType[*exec.ExitError](r.err); exit != nil && (exit.ExitCode() == 126 || exit.ExitCode() == 127) {
			r.failures-- // nlserver could not be started, so the module was not touched
		}
		return fmt.Errorf("nlserver restart %s: %w (its output is not read, as the module may inherit it; to see it, run it by hand as this user, after env_script)",
			module, r.err)
	}
	delete(b.restarts, module)
	return nil
}

// recordAndRestart has a shell write down which process it is before it becomes nlserver: a daemon that comes after a kill begins no
// second restart. After a crash of the machine there is no such process, so nothing has to be on disk.
const recordAndRestart = `read -r stat <"/proc/$$/stat"; echo "$stat" >"$2"; exec "$0" restart "$1"`

// start begins a restart. output, which may be nil, gets what it prints.
func (b *Binary) start(module string, env []string, output *os.File) (*restart, error) {
	if _, err := b.inspect(); err != nil {
		return nil, err
	}
	note := b.noteFile(module)
	cmd := b.command(env, "/bin/sh", "-c", recordAndRestart, b.cfg.Executable, module, note)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if output != nil {
		cmd.Stdout, cmd.Stderr = output, output
	}
	r := &restart{began: time.Now(), ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the restart, which may be after this process
		r.err = cmd.Wait()
		os.Remove(note)
		close(r.ended)
	}()
	return r, nil
}

// noteFile holds which process restarts a module: its line of /proc.
func (b *Binary) noteFile(module string) string {
	return filepath.Join(b.cfg.StateDir, module+".restart")
}

// outlived reports whether a restart of a module that another daemon began still runs.
func (b *Binary) outlived(module string) bool {
	note, err := os.ReadFile(b.noteFile(module))
	if err != nil {
		return false
	}
	pid, _, _ := strings.Cut(string(note), " ")
	now, _ := os.ReadFile("/proc/" + pid + "/stat")
	began := beganOf(note)
	return began != "" && began == beganOf(now)
}

// beganOf tells from a line of /proc when a process began, by which it differs from a later one of the same number; "" if it has ended.
func beganOf(stat []byte) string {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // after the name, which may hold anything
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// Retry forgets, by an operator's order, which option is offered, and that restarts failed. Activate must not be under way.
func (b *Binary) Retry() {
	b.offer.Store(nil)
	for _, r := range b.restarts {
		r.failures = 0
	}
}

// TakeOver has b go on with what before knows of restarts. b is not used yet.
func (b *Binary) TakeOver(before *Binary) { b.restarts = before.restarts }
