package nlserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopGrace is what a child has from SIGTERM to SIGKILL, as an nlserver that writes should not be cut off, and what its
// own children have to let go of its output after it has ended.
const stopGrace = 2 * time.Second

// killGrace is what the kernel has to close the output of those that were killed.
const killGrace = 200 * time.Millisecond

// child is a program to be run once, without a shell and in a process group of its own, so that what it starts can be
// stopped with it. Its stdin is /dev/null, its umask ours: files that nlserver creates look as they do under the
// service's user. It is not bound to our life by a death signal: an nlserver that outlives a killed daemon finishes
// what it writes, and the next daemon waits for it.
type child struct {
	path    string
	args    []string
	dir     string
	env     []string
	inherit *os.File // may be nil
	noCore  bool     // a core file would show the arguments
	// stdout and stderr may be the same capture, which then holds both in the order they were written.
	stdout, stderr *capture
}

// ending tells how a child ended.
type ending struct {
	started  bool
	took     time.Duration
	exitCode int
	failure  string // "exit status 3", "signal: killed"; empty after status 0
	complete bool   // the output was read to its end, and nobody was stopped in the middle of a line
}

// running counts the commands of this process that are within their time limits.
var running atomic.Int64

// CommandRuns reports whether a command of Campaign's runs now, within its time limit: one may hang so that not even SIGKILL ends it.
func CommandRuns() bool { return running.Load() > 0 }

// commandBegan counts a command until ended is called, for no longer than limit.
func commandBegan(limit time.Duration) (ended func()) {
	running.Add(1)
	timer := time.AfterFunc(limit, func() { running.Add(-1) })
	return func() {
		if timer.Stop() {
			running.Add(-1)
		}
	}
}

// run starts the child and returns after it has ended. The error says that it could not be started, or that it was
// stopped because of ctx or the timeout; how it ended by itself is in ending only.
func (c *child) run(ctx context.Context, timeout time.Duration) (ending, error) {
	end := ending{exitCode: -1}
	if ctx.Err() != nil {
		return end, context.Cause(ctx)
	}
	closeForeignDescriptors()
	output, err := c.openOutput()
	if err != nil {
		return end, err
	}
	cmd := exec.Command(c.path, c.args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	cmd.Stdout, cmd.Stderr = output.stdout, output.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.inherit != nil {
		cmd.ExtraFiles = append([]*os.File{c.inherit}, output.kept...)
	}
	began := time.Now()
	err = cmd.Start()
	// From here on the arguments are the kernel's; no reference of ours keeps the secret in them alive.
	cmd.Args, c.args, cmd.Env, c.env = nil, nil, nil, nil
	output.closeWriters()
	if err != nil {
		output.abandon()
		return end, err
	}
	end.started = true
	defer commandBegan(timeout + 2*stopGrace)()
	pid := cmd.Process.Pid
	if c.noCore {
		// Refused only when the child is gone already.
		_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	}

	endedAt, stopped := supervise(ctx, timeout, pid, output)
	err = cmd.Wait()
	end.took = endedAt.Sub(began)
	end.complete = output.abandon() && stopped == nil
	end.exitCode = cmd.ProcessState.ExitCode()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		end.failure, err = exit.Error(), nil
	}
	if stopped != nil {
		return end, stopped
	}
	return end, err
}

// supervise returns when the child has ended but was not yet waited for: as long as that is so, its number, which is
// that of the group as well, cannot be given to a stranger, and killing the group is safe. The error tells why the
// child was stopped.
func supervise(ctx context.Context, timeout time.Duration, pid int, output *output) (endedAt time.Time, stopped error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { endedAt = time.Now() }()
		for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		stopped = fmt.Errorf("stopped after %s, the limit of campaign.timeout: %w", timeout, context.DeadlineExceeded)
	case <-ctx.Done():
		stopped = fmt.Errorf("stopped: %w", context.Cause(ctx))
	}
	// After a suspend of this process the time is over and the child has ended long ago: then it was not stopped.
	if stopped == nil || hasEnded(pid) {
		<-ended
		// A descendant may keep the pipe for days. It is left alive, not waited for.
		waitAll(stopGrace, output.drained)
		return endedAt, nil
	}
	_ = unix.Kill(-pid, unix.SIGTERM) // ESRCH: all of them are gone, which is what we want
	// The end of the output tells that the descendants are gone too: a wrapper script dies of SIGTERM at once, while the
	// nlserver that it started is still finishing its file.
	waitAll(stopGrace, ended, output.drained)
	_ = unix.Kill(-pid, unix.SIGKILL)
	<-ended
	waitAll(killGrace, output.drained) // held open only by a descendant that left the group
	return endedAt, stopped
}

// hasEnded reports whether a child that nobody waited for yet has ended.
func hasEnded(pid int) bool {
	var info unix.Siginfo // stays empty as long as it runs
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	return err == nil && info.Signo != 0
}

// waitAll waits until all channels are closed, but not longer than limit.
func waitAll(limit time.Duration, channels ...<-chan struct{}) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, channel := range channels {
		select {
		case <-channel:
		case <-timer.C:
			return
		}
	}
}

// output is the parent's side of a child's output: pipes, and a goroutine for each that reads it into a capture.
type output struct {
	stdout, stderr *os.File // the child's ends
	readers        []*os.File
	kept           []*os.File // more ends to read from, for the child itself
	reading        sync.WaitGroup
	drained        chan struct{} // closed when every pipe was read to its end, or given up
	cutOff         atomic.Bool   // a pipe was given up
}

func (c *child) openOutput() (*output, error) {
	o := &output{drained: make(chan struct{})}
	var err error
	if o.stdout, err = o.pipe(c.stdout, c.inherit != nil); err == nil {
		o.stderr = o.stdout
		if c.stderr != c.stdout {
			o.stderr, err = o.pipe(c.stderr, c.inherit != nil)
		}
	}
	go func() { o.reading.Wait(); close(o.drained) }()
	if err != nil {
		o.closeWriters()
		o.abandon()
		return nil, fmt.Errorf("open a pipe for the output: %w", err)
	}
	return o, nil
}

// pipe makes a pipe that is read into a capture, and returns the child's end.
func (o *output) pipe(into *capture, keep bool) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.readers = append(o.readers, r)
	if keep {
		if err := o.keepReadable(r); err != nil {
			w.Close()
			return nil, err
		}
	}
	o.reading.Go(func() {
		if _, err := io.Copy(into, r); err != nil {
			o.cutOff.Store(true)
		}
	})
	return w, nil
}

// keepReadable makes an end of the pipe for the child to inherit: a pipe that nobody can read from any more, because the
// daemon was killed, would kill an nlserver in the middle of its file when it prints. What it prints then fits into the
// pipe, which is made large where that is allowed. The end is opened anew, as a shared one would share its mode, too; without
// /proc that cannot be done, and then such an nlserver is killed.
func (o *output) keepReadable(r *os.File) error {
	raw, err := r.SyscallConn()
	if err != nil {
		return err
	}
	var again *os.File
	var openErr error
	err = raw.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) // the limit for everybody, by default
		again, openErr = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	})
	if errors.Is(openErr, fs.ErrNotExist) {
		return nil
	}
	o.kept = append(o.kept, again)
	return errors.Join(err, openErr)
}

// closeWriters closes our copies of the child's ends, without which the pipes would never end.
func (o *output) closeWriters() {
	for _, f := range append([]*os.File{o.stdout, o.stderr}, o.kept...) {
		if f != nil {
			f.Close() // the second time for a shared one, which does no harm
		}
	}
}

// abandon ends the reading, waits for the goroutines, and reports whether all was read. A descendant that goes on
// writing gets EPIPE.
func (o *output) abandon() bool {
	for _, r := range o.readers {
		// Not Close: that is for after the last read.
		_ = r.SetReadDeadline(time.Unix(1, 0))
	}
	<-o.drained
	for _, r := range o.readers {
		r.Close()
	}
	return !o.cutOff.Load()
}

// closeForeignDescriptors keeps from our children what this process was started with beside stdin, stdout and stderr.
// What Go opens is closed on exec already.
var closeForeignDescriptors = sync.OnceFunc(func() {
	// Refused before Linux 5.11; then there is nothing to be done about it.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
})
