package nlserver

import (
	"cmp"
	"context"
	"fmt"
	"io"
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
// own children have to close its output after it has ended.
const stopGrace = 2 * time.Second

// running counts the commands of this process that are within their time limits.
var running atomic.Int64

// CommandRuns reports whether a command of Campaign's runs now, within its time limit: one may hang so that not even SIGKILL ends it.
func CommandRuns() bool { return running.Load() > 0 }

// countCommand counts a command until ended is called, for no longer than limit.
func countCommand(limit time.Duration) (ended func()) {
	running.Add(1)
	ended = sync.OnceFunc(func() { running.Add(-1) })
	time.AfterFunc(limit, ended)
	return ended
}

// child is a program to be run once, without a shell and in a process group of its own, so that what it starts can be
// stopped with it. Its stdin is /dev/null, its umask ours: files that nlserver creates look as they do under the
// service's user. It is not bound to our life by a death signal: an nlserver that outlives a killed daemon finishes
// what it writes, and the next daemon waits for it.
type child struct {
	args    []string // with the program
	env     []string
	inherit *os.File  // may be nil
	stdout  io.Writer // nil: to what is returned, with stderr
}

// run returns the end of what the child printed, and how long it ran. The error says that it could not be started, was stopped because
// of ctx or the timeout, or (an *exec.ExitError) how it ended.
func (b *Binary) run(ctx context.Context, c child) (printed string, took time.Duration, err error) {
	if ctx.Err() != nil {
		return "", 0, context.Cause(ctx)
	}
	reader, writer, err := outputPipe(c.inherit != nil)
	if err != nil {
		return "", 0, fmt.Errorf("open a pipe for the output: %w", err)
	}
	defer reader.Close()
	cmd := b.command(c.env, c.args...)
	cmd.Stdout, cmd.Stderr = cmp.Or[io.Writer](c.stdout, writer), writer
	cmd.WaitDelay = stopGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.inherit != nil {
		cmd.ExtraFiles = []*os.File{c.inherit}
	}
	began := time.Now()
	err = cmd.Start()
	writer.Close() // else the pipe would never end
	if err != nil {
		return "", 0, err
	}
	defer countCommand(b.cfg.Timeout + 3*stopGrace)()
	pid := cmd.Process.Pid
	// A core file would show the arguments. Refused only when the child is gone already.
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	output, drained := &tail{limit: 256 << 10}, make(chan struct{})
	go func() {
		defer close(drained)
		io.CopyBuffer(output, struct{ io.Reader }{reader}, make([]byte, 4<<10)) // io.Copy takes 32 KiB
	}()

	stopped := b.supervise(ctx, pid, drained)
	err = cmd.Wait()
	if stopped != nil {
		err = stopped
	}
	took = time.Since(began)
	// A descendant that goes on writing gets EPIPE.
	_ = reader.SetReadDeadline(time.Unix(1, 0))
	<-drained
	return string(output.kept), took, err
}

// command prepares a program, whose descriptors are /dev/null and what is added.
func (b *Binary) command(env []string, args ...string) *exec.Cmd {
	// What Go opens is closed on exec already, but not what this process was started with. Refused before Linux 5.11.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = b.cfg.Home, env
	return cmd
}

// outputPipe makes a pipe. For an apply its writing end can also be read from: a pipe that nobody can read from any more, because the
// daemon was killed, would kill an nlserver in the middle of its file when it prints. What it prints then has to fit into the pipe.
// Without /proc that cannot be had.
func outputPipe(apply bool) (reader, writer *os.File, err error) {
	reader, writer, err = os.Pipe()
	if err != nil || !apply {
		return reader, writer, err
	}
	_, _ = unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, 1<<20) // the limit for everybody, by default
	if both, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", writer.Fd()), os.O_RDWR, 0); err == nil {
		writer.Close()
		writer = both
	}
	return reader, writer, nil
}

// supervise returns when the child has ended but was not yet waited for: as long as that is so, its number, which is
// that of the group as well, cannot be given to a stranger, and killing the group is safe. The error tells why the
// child was stopped.
func (b *Binary) supervise(ctx context.Context, pid int, drained <-chan struct{}) (stopped error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		hasEnded(pid, 0)
	}()
	select {
	case <-ended:
	case <-time.After(b.cfg.Timeout):
		stopped = fmt.Errorf("stopped after %s, the limit of campaign.timeout: %w", b.cfg.Timeout, context.DeadlineExceeded)
	case <-ctx.Done():
		stopped = fmt.Errorf("stopped: %w", context.Cause(ctx))
	}
	// After a suspend of this process the time is over and the child has ended long ago: then it was not stopped.
	if stopped != nil && hasEnded(pid, unix.WNOHANG) {
		stopped = nil
	}
	if stopped != nil {
		_ = unix.Kill(-pid, unix.SIGTERM) // ESRCH: all of them are gone, which is what we want
		// The end of the output tells that the descendants are gone too: a wrapper script dies of SIGTERM at once, while the
		// nlserver that it started is still finishing its file.
		waitFor(stopGrace, ended, drained)
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	<-ended
	waitFor(stopGrace, drained) // a descendant may keep the pipe for days; it is left alive
	return stopped
}

// hasEnded waits for the end of a child, or with WNOHANG reports whether it has ended. It stays to be waited for.
func hasEnded(pid, options int) bool {
	for {
		var info unix.Siginfo // stays empty as long as it runs
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|options, nil); err != unix.EINTR {
			return info.Signo != 0
		}
	}
}

// waitFor waits until all channels are closed, but not longer than limit.
func waitFor(limit time.Duration, channels ...<-chan struct{}) {
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
