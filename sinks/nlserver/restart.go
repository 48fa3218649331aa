package nlserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// restart is one run of "nlserver restart".
type restart struct {
	began    time.Time
	failures int           // in a row, with this one if it fails
	ended    chan struct{} // closed at its end
	err      error         // of one that has ended
	look     look          // before it
	output   *os.File      // what it prints into, where that is read
	said     string        // the same, when it was read
}

// printed is what a restart that has ended has printed, where that is read. Not safe for concurrent use.
func (r *restart) printed() string {
	if r.output != nil {
		r.said = writtenIn(r.output)
		r.output.Close()
		r.output = nil
	}
	return r.said
}

func (r *restart) running() bool {
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

func errBusy(module string) error {
	return fmt.Errorf("nlserver restart %s: an earlier one has not ended yet; no other is begun before", module)
}

// exitStatus is what a program ended with that did not end well; -1 where it has none.
func exitStatus(err error) int {
	if exit, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// why is what a restart that failed has printed, for its error.
func (r *restart) why() string {
	if why := saying(redact(r.printed())); why != "" {
		return why
	}
	return " (its output is not read, as the module may inherit it; to see it, run it by hand as this user, after env_script)"
}

// beginHere begins a restart as a child of this process. nlserver may fork the module as a child of its own, which must outlive this
// process and print at any time: so it gets a session and no descriptor of ours, and is never signalled.
func (b *Binary) beginHere(ctx context.Context, module string) (r *restart, err error) {
	note, err := b.claim(module)
	if err != nil {
		return nil, err
	}
	defer func() {
		if r == nil {
			note.Close()
		}
	}()
	env, err := b.environment(ctx)
	if err = cmp.Or(err, context.Cause(ctx)); err != nil {
		return nil, err
	}
	output := b.roomForOutput(module)
	if r, err = b.start(module, env, output, note); err != nil {
		output.Close() // does nothing where there is none
		return nil, fmt.Errorf("nlserver restart %s: %w", module, err)
	}
	r.output = output
	return r, nil
}

// recordAndRestart has a shell write down which process it is before it becomes nlserver: a daemon that comes after a kill begins no
// second restart. After a crash of the machine there is no such process, so nothing has to be on disk.
const recordAndRestart = `read -r stat <"/proc/$$/stat"; echo "$stat" >"$2"; exec "$0" restart "$1"`

// start begins a restart. output, which may be nil, gets what it prints. The note is closed at the end of the restart.
func (b *Binary) start(module string, env []string, output, note *os.File) (*restart, error) {
	if _, err := b.inspect(); err != nil {
		return nil, err
	}
	cmd := b.command(env, "/bin/sh", "-c", recordAndRestart, b.cfg.Executable, module, b.noteFile(module))
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
		_ = note.Truncate(0) // these do nothing where there is none
		_, _ = note.WriteAt([]byte("ended\n"), 0)
		note.Close()
		close(r.ended)
	}()
	return r, nil
}

// noteFile holds which process restarts a module: its line of /proc. When none does, it tells by its time when that was; empty, that
// there was none.
func (b *Binary) noteFile(module string) string {
	return filepath.Join(b.cfg.StateDir, module+".restart")
}

// claim opens the note of a module for a process that is about to restart it, and holds its lock until it is closed. Of two processes,
// such as a daemon and the activation service, one gets it, and none while a restart runs that outlived its own. Where the disk is full,
// there is no note, and it is nil, which may be closed.
func (b *Binary) claim(module string) (*os.File, error) {
	note, err := os.OpenFile(b.noteFile(module), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		b.cfg.Logger.Warn("a restart is not on record, so another daemon may begin a second one", "step", "restart "+module, "reason", err)
		return nil, nil
	}
	err = unix.Flock(int(note.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK || err == nil && b.outlived(module) {
		err = errBusy(module)
	} else if err == nil {
		err = b.tooSoon(module)
	}
	if err != nil {
		note.Close()
		return nil, err
	}
	return note, nil
}

// tooSoonError says that a module was restarted a short time ago.
type tooSoonError struct {
	module string
	until  time.Time
}

func (e tooSoonError) Error() string {
	return fmt.Sprintf("nlserver restart %s: not before %s, by campaign.activate.min_interval", e.module, e.until.UTC().Format(time.RFC3339))
}

// RetryAt tells when it is restarted.
func (e tooSoonError) RetryAt() time.Time { return e.until }

// tooSoon is an error if the last restart of a module, whoever did it, is not MinInterval ago.
func (b *Binary) tooSoon(module string) error {
	info, err := os.Stat(b.noteFile(module))
	if err != nil || info.Size() == 0 {
		return nil
	}
	last, now := info.ModTime(), time.Now()
	if now.Sub(last).Abs() >= b.cfg.MinInterval { // one in the future is of a clock that was set back
		return nil
	}
	if last.After(now) {
		last = now
	}
	return credential.Because(credential.ReasonActivationWaits, tooSoonError{module, last.Add(b.cfg.MinInterval)})
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
