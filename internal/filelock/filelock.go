// Package filelock allows one daemon for an instance's configuration file, also where two have different state directories. Two would
// undo each other's work: what one has applied is drift to the other.
//
// A lock is a socket in the abstract name space, named after the file's directory (device and inode) and the file's name. The kernel
// drops it with the process, it leaves no file beside one that is not ours, and it stays when that one is replaced. Containers that
// share a directory and have different network name spaces do not see each other's locks.
//
// Every local user can take the name. So only a process of our own user, of root or of the directory's owner counts as another daemon.
// For any other the daemon runs without a lock, and logs that.
package filelock

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("another campaign-credsync keeps it")

// ID is what every process calls a file.
type ID struct {
	socket string
	owner  uint32 // of the directory
}

// IDOf finds the ID of a file, which need not be there; its directory must.
func IDOf(file string) (ID, error) {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	info, err := os.Stat(filepath.Dir(file))
	if err != nil {
		return ID{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)                 // always that on Linux
	digest := sha256.Sum256([]byte(filepath.Base(file))) // as a socket's name has no room for every file's
	return ID{fmt.Sprintf("@campaign-credsync/%x/%d/%x", stat.Dev, stat.Ino, digest), stat.Uid}, nil
}

// Lock is held until its Release.
type Lock struct {
	listener net.Listener // nil where a stranger has the name
}

// Take locks a file, or answers ErrLocked when another daemon has. It touches no file system.
func Take(id ID, log *slog.Logger) (*Lock, error) {
	listener, err := net.Listen("unix", id.socket)
	if err == nil {
		go dropCallers(listener)
		return &Lock{listener}, nil
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return nil, err
	}
	holder, err := holderOf(id.socket)
	reason := "nobody answers there"
	switch {
	case err == unix.ECONNREFUSED || err == unix.EAGAIN: // a daemon listens, and its queue is never full
	case err != nil:
		return nil, fmt.Errorf("find out who has taken it: %w", err)
	case holder.Uid == uint32(os.Geteuid()) || holder.Uid == 0 || holder.Uid == id.owner:
		return nil, fmt.Errorf("%w (process %d): stop one of the two, or take the instance out of one configuration", ErrLocked, holder.Pid)
	default:
		reason = fmt.Sprintf("process %d of user %d has it", holder.Pid, holder.Uid)
	}
	log.Warn("a second campaign-credsync for the same file would not be noticed", "socket", id.socket, "reason", reason,
		"remedy", "find that process (ss -xlp) and end it, then restart this one")
	return &Lock{}, nil
}

// Release gives the file up.
func (l *Lock) Release() {
	if l.listener != nil {
		l.listener.Close()
	}
}

// dropCallers keeps the queue empty for holderOf in other processes, which needs nothing but a connection.
func dropCallers(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // a lack of descriptors or memory, which passes
			time.Sleep(100 * time.Millisecond)
		default:
			conn.Close()
		}
	}
}

// holderOf finds out who listens at a socket.
func holderOf(socket string) (*unix.Ucred, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
	for tries := 20; tries > 0 && err == unix.ECONNREFUSED; tries-- { // it has just ended, or is about to listen
		time.Sleep(time.Millisecond)
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
	}
	if err != nil {
		return nil, err
	}
	return unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
}
