package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machinery are the calls of Go's runtime by which it waits, shares out work and manages memory. They have no effect outside the
// process, so that a crash at one of them is a crash at the next other call; and that they cannot fail is an assumption of the
// runtime.
var machinery = map[uint64]bool{
	unix.SYS_FUTEX: true, unix.SYS_NANOSLEEP: true, unix.SYS_EPOLL_PWAIT: true, unix.SYS_SCHED_YIELD: true, unix.SYS_TGKILL: true,
	unix.SYS_RT_SIGRETURN: true, unix.SYS_RT_SIGPROCMASK: true, unix.SYS_RT_SIGACTION: true, unix.SYS_SIGALTSTACK: true,
	unix.SYS_RESTART_SYSCALL: true, unix.SYS_MMAP: true, unix.SYS_MUNMAP: true, unix.SYS_MADVISE: true, unix.SYS_MPROTECT: true,
	unix.SYS_MINCORE: true, unix.SYS_BRK: true, unix.SYS_GETPID: true, unix.SYS_GETTID: true, unix.SYS_EXIT: true,
	unix.SYS_EXIT_GROUP: true, unix.SYS_SCHED_GETAFFINITY: true, unix.SYS_CLOCK_GETTIME: true, unix.SYS_SET_ROBUST_LIST: true,
	unix.SYS_RSEQ: true, unix.SYS_PRCTL: true, unix.SYS_SET_TID_ADDRESS: true, unix.SYS_TIMER_CREATE: true, unix.SYS_TIMER_SETTIME: true,
	unix.SYS_TIMER_DELETE: true, unix.SYS_GETRLIMIT: true, unix.SYS_EPOLL_CREATE1: true, unix.SYS_EVENTFD2: true, unix.SYS_GETRANDOM: true,
}

// ignored tells whether a call is the runtime's own.
func ignored(pid, tid int, info syscallStop) bool {
	switch info.number {
	case unix.SYS_CLONE:
		return info.args[0]&unix.CLONE_THREAD != 0
	case unix.SYS_READ, unix.SYS_WRITE, unix.SYS_EPOLL_CTL:
		// By an eventfd one thread wakes another.
		at := 0
		if info.number == unix.SYS_EPOLL_CTL {
			at = 2
		}
		return strings.HasPrefix(descriptor(tid, info.args[at]), "anon_inode:[eventfd]")
	}
	return machinery[info.number] || looksAtAnother(pid, tid, info)
}

// looksAtAnother tells whether a call reads about another process, to find a module. It has no effect either, and there are as many as the
// machine has processes.
func looksAtAnother(pid, tid int, info syscallStop) bool {
	rest, proc := strings.CutPrefix(object(tid, info), "/proc/")
	process, _, below := strings.Cut(rest, "/")
	return proc && below && process != "self" && process != strconv.Itoa(pid)
}

// shape is the name of a call, and which of its arguments tells what it is about.
type shape struct {
	name     string
	fd, path int // -1: none
}

var shapes = map[uint64]shape{
	unix.SYS_OPENAT: {"openat", -1, 1}, unix.SYS_OPENAT2: {"openat2", -1, 1}, unix.SYS_CLOSE: {"close", 0, -1},
	unix.SYS_READ: {"read", 0, -1}, unix.SYS_WRITE: {"write", 0, -1}, unix.SYS_PREAD64: {"pread64", 0, -1},
	unix.SYS_PWRITE64: {"pwrite64", 0, -1}, unix.SYS_LSEEK: {"lseek", 0, -1}, unix.SYS_FSYNC: {"fsync", 0, -1},
	unix.SYS_FDATASYNC: {"fdatasync", 0, -1}, unix.SYS_FTRUNCATE: {"ftruncate", 0, -1}, unix.SYS_FALLOCATE: {"fallocate", 0, -1},
	unix.SYS_FSTAT: {"fstat", 0, -1}, unix.SYS_NEWFSTATAT: {"newfstatat", -1, 1}, unix.SYS_STATX: {"statx", -1, 1},
	unix.SYS_FSTATFS: {"fstatfs", 0, -1}, unix.SYS_STATFS: {"statfs", -1, 0}, unix.SYS_GETDENTS64: {"getdents64", 0, -1},
	unix.SYS_RENAMEAT: {"renameat", -1, 1}, unix.SYS_RENAMEAT2: {"renameat2", -1, 1}, unix.SYS_LINKAT: {"linkat", -1, 3},
	unix.SYS_UNLINKAT: {"unlinkat", -1, 1}, unix.SYS_SYMLINKAT: {"symlinkat", -1, 2}, unix.SYS_MKDIRAT: {"mkdirat", -1, 1},
	unix.SYS_READLINKAT: {"readlinkat", -1, 1}, unix.SYS_FACCESSAT: {"faccessat", -1, 1}, unix.SYS_FACCESSAT2: {"faccessat2", -1, 1},
	unix.SYS_FCHMOD: {"fchmod", 0, -1}, unix.SYS_FCHMODAT: {"fchmodat", -1, 1}, unix.SYS_FCHOWN: {"fchown", 0, -1},
	unix.SYS_FCHOWNAT: {"fchownat", -1, 1}, unix.SYS_UTIMENSAT: {"utimensat", -1, 1}, unix.SYS_FCNTL: {"fcntl", 0, -1},
	unix.SYS_FLOCK: {"flock", 0, -1}, unix.SYS_IOCTL: {"ioctl", 0, -1}, unix.SYS_DUP: {"dup", 0, -1}, unix.SYS_DUP3: {"dup3", 0, -1},
	unix.SYS_FLISTXATTR: {"flistxattr", 0, -1}, unix.SYS_FGETXATTR: {"fgetxattr", 0, -1}, unix.SYS_FSETXATTR: {"fsetxattr", 0, -1},
	unix.SYS_FREMOVEXATTR: {"fremovexattr", 0, -1}, unix.SYS_LISTXATTR: {"listxattr", -1, 0}, unix.SYS_GETXATTR: {"getxattr", -1, 0},
	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", 0, -1}, unix.SYS_SPLICE: {"splice", 0, -1}, unix.SYS_SENDFILE: {"sendfile", 0, -1},
	unix.SYS_PIPE2: {"pipe2", -1, -1}, unix.SYS_CLONE: {"clone", -1, -1}, unix.SYS_CLONE3: {"clone3", -1, -1},
	unix.SYS_WAIT4: {"wait4", -1, -1}, unix.SYS_WAITID: {"waitid", -1, -1}, unix.SYS_KILL: {"kill", -1, -1},
	unix.SYS_EXECVE: {"execve", -1, 0}, unix.SYS_PRLIMIT64: {"prlimit64", -1, -1}, unix.SYS_CLOSE_RANGE: {"close_range", -1, -1},
	unix.SYS_PIDFD_OPEN: {"pidfd_open", -1, -1}, unix.SYS_PIDFD_SEND_SIGNAL: {"pidfd_send_signal", -1, -1},
	unix.SYS_SOCKET: {"socket", -1, -1}, unix.SYS_CONNECT: {"connect", 0, -1}, unix.SYS_BIND: {"bind", 0, -1},
	unix.SYS_LISTEN: {"listen", 0, -1}, unix.SYS_ACCEPT4: {"accept4", 0, -1}, unix.SYS_SHUTDOWN: {"shutdown", 0, -1},
	unix.SYS_SETSOCKOPT: {"setsockopt", 0, -1}, unix.SYS_GETSOCKOPT: {"getsockopt", 0, -1}, unix.SYS_GETSOCKNAME: {"getsockname", 0, -1},
	unix.SYS_GETPEERNAME: {"getpeername", 0, -1}, unix.SYS_SENDTO: {"sendto", 0, -1}, unix.SYS_RECVFROM: {"recvfrom", 0, -1},
	unix.SYS_SENDMSG: {"sendmsg", 0, -1}, unix.SYS_RECVMSG: {"recvmsg", 0, -1}, unix.SYS_EPOLL_CTL: {"epoll_ctl", 2, -1},
	unix.SYS_INOTIFY_INIT1: {"inotify_init1", -1, -1}, unix.SYS_INOTIFY_ADD_WATCH: {"inotify_add_watch", -1, 1},
	unix.SYS_INOTIFY_RM_WATCH: {"inotify_rm_watch", 0, -1}, unix.SYS_UNAME: {"uname", -1, -1},
	unix.SYS_UMASK: {"umask", -1, -1}, unix.SYS_GETEUID: {"geteuid", -1, -1}, unix.SYS_GETUID: {"getuid", -1, -1},
}

func callName(number uint64) string {
	if s, ok := shapes[number]; ok {
		return s.name
	}
	return fmt.Sprintf("call %d", number)
}

// object is the file, socket or pipe that a call is about.
func object(tid int, info syscallStop) string {
	s, ok := shapes[info.number]
	switch {
	case !ok:
		return ""
	case s.fd >= 0:
		return descriptor(tid, info.args[s.fd])
	case s.path >= 0:
		return text(tid, info.args[s.path])
	}
	return ""
}

func descriptor(tid int, fd uint64) string {
	target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int32(fd)))
	return target
}

// text reads a path in the memory of a thread.
func text(tid int, address uint64) string {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", tid))
	if err != nil {
		return ""
	}
	defer memory.Close()
	buffer := make([]byte, 256)
	n, _ := memory.ReadAt(buffer, int64(address))
	path, _, _ := bytes.Cut(buffer[:n], []byte{0})
	return string(path)
}
