package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

type tracer struct {
	pid, at  int
	after    string
	first    string
	pause    bool
	paused   int        // the thread that waits
	errno    unix.Errno // 0: kill
	repeat   bool
	children bool
	waiting  bool // for an exec
	list     bool
	watched  directories

	out     *json.Encoder
	threads map[int]*thread
	count   int
	failing uint64 // the call that was interfered with
	fired   bool
}

// thread is what is known of one that is followed.
type thread struct {
	fails bool // the call that it is in runs, and fails all the same
}

// event is what the tracer says of a call.
type event struct {
	N     int    `json:"n"`
	Call  string `json:"call"`
	On    string `json:"on,omitempty"`
	Fired bool   `json:"fired,omitempty"`

	ID    string                     `json:"id,omitempty"` // of the file that is synced
	Files map[string]map[string]file `json:"files,omitempty"`
}

// attach follows every thread, also those that are started while it looks for them.
func (t *tracer) attach() error {
	for found := true; found; {
		found = false
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", t.pid))
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || t.threads[tid] != nil {
				continue
			}
			// Children are not followed: that would take TRACEFORK and TRACEVFORK.
			const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC
			err = ptrace(unix.PTRACE_SEIZE, tid, 0, options)
			if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM) && len(t.threads) > 0 {
				continue // it has ended, or its parent, which is followed, brought it along
			}
			if err == nil {
				err = unix.PtraceInterrupt(tid)
			}
			if err != nil {
				return fmt.Errorf("follow thread %d: %w", tid, err)
			}
			t.threads[tid], found = &thread{}, true
		}
	}
	return nil
}

// follow has the process run until it ends, or until it is to be left.
func (t *tracer) follow(leave *atomic.Bool) error {
	for len(t.threads) > 0 {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECHILD) {
			return nil
		}
		if err != nil {
			return err
		}
		if !status.Stopped() {
			delete(t.threads, tid)
			continue
		}
		if t.threads[tid] == nil {
			t.threads[tid] = &thread{}
		}
		if err := t.stopped(tid, status, leave.Load()); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// stopped takes what made a thread stop, and has it go on.
func (t *tracer) stopped(tid int, status unix.WaitStatus, leave bool) error {
	signal := 0
	atEntry := false
	switch how := status.StopSignal(); {
	case how == unix.SIGTRAP|0x80:
		info, err := syscallInfo(tid)
		if err != nil {
			return err
		}
		if atEntry = info.op == unix.PTRACE_SYSCALL_INFO_ENTRY; atEntry && !leave {
			if err := t.enters(tid, info); err != nil {
				return err
			}
		} else if !atEntry && t.threads[tid].fails {
			t.threads[tid].fails = false
			if err := setResult(tid, t.errno); err != nil {
				return err
			}
		}
	case status>>16 == unix.PTRACE_EVENT_STOP && how != unix.SIGTRAP:
		return ptrace(unix.PTRACE_LISTEN, tid, 0, 0) // stopped as by SIGSTOP, until SIGCONT
	case status>>16 == unix.PTRACE_EVENT_EXEC:
		t.waiting = false
	case status>>16 == 0:
		signal = int(how)
	}
	if !leave && t.paused == tid {
		return nil
	}
	if !leave {
		return unix.PtraceSyscall(tid, signal)
	}
	if t.paused != 0 && t.paused != tid {
		ptrace(unix.PTRACE_DETACH, t.paused, 0, 0)
		delete(t.threads, t.paused)
	}
	// A thread can be left only when it stands still.
	for other := range t.threads {
		if other != tid {
			unix.PtraceInterrupt(other)
		}
	}
	delete(t.threads, tid)
	return ptrace(unix.PTRACE_DETACH, tid, 0, uintptr(signal))
}

// enters counts a call before it is done, and interferes where that is asked for.
func (t *tracer) enters(tid int, info syscallStop) error {
	if t.waiting || ignored(t.pid, tid, info) {
		return nil
	}
	t.count++
	now := t.at > 0 && t.count == t.at
	switch name := callName(info.number); {
	case t.at > 0:
	case t.after != "" && name == t.after:
		if t.after = ""; t.first == "" {
			t.at = t.count + 1
		}
	case t.after == "" && t.first != "" && name == t.first:
		t.at, now = t.count, true
	}
	again := t.fired && t.repeat && t.errno != 0 && info.number == t.failing
	if t.list || now {
		e := event{N: t.count, Call: callName(info.number), On: object(tid, info), Fired: now}
		if e.Call == "fsync" || e.Call == "fdatasync" {
			e.ID = t.watched.sync(t.pid, tid, int(int32(info.args[0])))
		}
		e.Files = t.watched.before(e.Call, e.On)
		t.out.Encode(e)
	}
	if now && t.pause {
		t.paused = tid
		return nil
	}
	if now {
		t.fired, t.failing = true, info.number
		if t.errno == 0 {
			if t.children {
				killDescendants(t.pid)
			}
			return unix.Kill(t.pid, unix.SIGKILL) // the call is not begun any more
		}
	}
	if !now && !again {
		return nil
	}
	if info.number == unix.SYS_CLOSE { // which gives the descriptor back whatever it says
		t.threads[tid].fails = true
		return nil
	}
	return skipCall(tid, t.errno)
}

func killDescendants(pid int) {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, child := range strings.Fields(string(list)) {
			if id, err := strconv.Atoi(child); err == nil {
				unix.Kill(id, unix.SIGSTOP) // it must not have more while they are looked for
				killDescendants(id)
				unix.Kill(id, unix.SIGKILL)
			}
		}
	}
}

// syscallStop is the kernel's struct ptrace_syscall_info at the entry of a call.
type syscallStop struct {
	op     uint8
	_      [3]uint8
	arch   uint32
	ip, sp uint64
	number uint64
	args   [6]uint64
	_      [16]uint64 // room for what later kernels tell
}

func syscallInfo(tid int) (syscallStop, error) {
	var info syscallStop
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info),
		uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return info, fmt.Errorf("ask for the system call: %w", errno)
	}
	return info, nil
}

func ptrace(request, tid int, address, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), address, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
