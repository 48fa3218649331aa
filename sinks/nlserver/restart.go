package nlserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// restart is one run of "nlserver restart".
type restart struct {
	began    time.Time
	before   int         // failures in a row before it
	forgiven atomic.Bool // by an operator: neither they nor its own count
	look     look        // before it

	ended chan struct{} // closed at its end; then there are
	said  string        // what it has printed, where that is read
	exit  error         // how it ended
	err   error         // how it failed
	text  string        // the same, with what may be quoted of the output
}

// end takes how a restart has ended. Whoever calls closes ended after it.
func (r *restart) end(said string, exit error) {
	r.said, r.exit = said, exit
	if exit != nil && !noTask(said) { // that there is no such module here is no failure, whatever the exit status
		r.err, r.text = exit, exit.Error()+why(said)
	}
}

// failures are those in a row up to a restart that has ended; none where there is none.
func (r *restart) failures() failures {
	if r == nil || r.err == nil || r.forgiven.Load() {
		return failures{}
	}
	count := r.before
	if code := exitStatus(r.err); code != 126 && code != 127 { // else nlserver could not be started, so the module was not touched
		count++
	}
	return failures{count, r.began, r.text}
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
func why(said string) string {
	if why := saying(redact(said)); why != "" {
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
	return r, nil
}

// recordAndRestart has a shell write down which process it is before it becomes nlserver: a daemon that comes after a kill begins no
// second restart. After a crash of the machine there is no such process, so nothing has to be on disk.
const recordAndRestart = `read -r stat <"/proc/$$/stat"; printf '%s\n%s' "$stat" "$3" >"$2"; exec "$0" restart "$1"`

// start begins a restart. output, which may be nil, gets what it prints. At the end of the restart it is closed, and so is the note.
func (b *Binary) start(module string, env []string, output, note *os.File) (*restart, error) {
	if _, err := b.inspect(); err != nil {
		return nil, err
	}
	r := &restart{began: time.Now(), before: b.last(module).failures().Count, ended: make(chan struct{})}
	// Without the reason: an older release takes what follows the last parenthesis.
	earlier := failures{Count: r.before, LastAt: r.began}
	record := os.DevNull
	if note != nil {
		record = note.Name()
	}
	cmd := b.command(env, "/bin/sh", "-c", recordAndRestart, b.cfg.Executable, module, record, earlier.line())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if output != nil {
		cmd.Stdout, cmd.Stderr = output, output
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the restart, which may be after this process
		defer close(r.ended)
		exit, said := cmd.Wait(), ""
		if output != nil {
			said = writtenIn(output)
			output.Close()
		}
		r.end(said, exit)
		endNote(note, r.failures())
	}()
	return r, nil
}
