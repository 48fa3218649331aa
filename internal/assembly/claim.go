package assembly

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	stdsync "sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync"
)

// claims keep a second daemon, or a sync run by hand, away from a configuration file, also where it has a state directory
// of its own and so does not see the lock there. Two would undo each other's work: what one has applied is drift to the other.
//
// A claim is a socket in the abstract name space that is named after the file's directory (device and inode) and the file's
// name. The kernel drops it with the process, it leaves no file beside a file that is not ours, survives that this one is
// replaced, holds no directory busy that is to be unmounted, and tells who holds it. Containers with a network of their
// own that share a directory do not see each other's.
//
// Whoever knows the name may take it. So only a process of our own user, root or the directory's owner counts as another
// daemon: a stranger cannot keep the daemon from its work, only make it say that a second one would go unnoticed.
type claims struct {
	log *slog.Logger

	mu   stdsync.Mutex
	held map[string]*claim // by configuration file
}

// claim is one name that is held.
type claim struct {
	name     string
	listener net.Listener // nil where a stranger has the name
	ended    chan struct{}
}

// errClaimed says that another process keeps the file.
var errClaimed = errors.New("another campaign-credsync keeps it")

func newClaims(log *slog.Logger) *claims { return &claims{log: log, held: map[string]*claim{}} }

// take claims what a does not hold yet of an assembly's files: all of them, or none. It has patience with a process that is
// about to end.
func (c *claims) take(a *assembly, patience time.Duration) error {
	if err := oneNameEach(a); err != nil {
		return err
	}
	began := time.Now()
	var taken []string
	for i, file := range a.files {
		c.mu.Lock()
		before := c.held[file] != nil
		c.mu.Unlock()
		err := c.ensure(file)
		for errors.Is(err, errClaimed) && time.Since(began) < patience {
			time.Sleep(5 * time.Millisecond)
			err = c.ensure(file)
		}
		if err != nil {
			c.drop(taken...)
			return fmt.Errorf("instance %s: %w", a.instances[i].Name, err)
		}
		if !before {
			taken = append(taken, file)
		}
	}
	return nil
}

// oneNameEach refuses two instances that have one file under two names: each would take the other's work for drift.
func oneNameEach(a *assembly) error {
	var infos []os.FileInfo
	for i, file := range a.files {
		info, err := os.Stat(file)
		if err != nil {
			info = nil // it may come later
		}
		for k, other := range infos {
			if info != nil && other != nil && os.SameFile(info, other) {
				return fmt.Errorf("instances %s and %s have one file under two names (%s, %s): give each its own",
					a.instances[k].Name, a.instances[i].Name, a.files[k], file)
			}
		}
		infos = append(infos, info)
	}
	return nil
}

// keep drops what an assembly does not need.
func (c *claims) keep(a *assembly) {
	needed := map[string]bool{}
	for _, file := range a.files {
		needed[file] = true
	}
	var rest []string
	c.mu.Lock()
	for file := range c.held {
		if !needed[file] {
			rest = append(rest, file)
		}
	}
	c.mu.Unlock()
	c.drop(rest...)
}

func (c *claims) drop(files ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, file := range files {
		if one := c.held[file]; one != nil {
			one.close()
			delete(c.held, file)
		}
	}
}

func (c *claims) close() { c.keep(&assembly{}) }

// ensure holds the claim of a file as it is now: its directory may have come, or been replaced, since. Where there is no
// directory there is nothing that could be written, and nothing to be claimed.
func (c *claims) ensure(file string) error {
	name, owner, err := claimName(file)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.held[file]
	if before != nil && before.name == name {
		return nil
	}
	next, err := c.claim(name, owner)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if before != nil {
		before.close()
	}
	c.held[file] = next
	return nil
}

// claimName is what every process calls the file, and the owner of its directory.
func claimName(file string) (name string, owner uint32, err error) {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	info, err := os.Stat(filepath.Dir(file))
	if err != nil {
		return "", 0, err
	}
	stat := info.Sys().(*syscall.Stat_t)                 // always that on Linux
	digest := sha256.Sum256([]byte(filepath.Base(file))) // as a socket's name has no room for every file's
	return fmt.Sprintf("@campaign-credsync/%x/%d/%x", stat.Dev, stat.Ino, digest), stat.Uid, nil
}

// claim takes a name, or answers errClaimed.
func (c *claims) claim(name string, owner uint32) (*claim, error) {
	for try := 0; ; try++ {
		listener, err := net.Listen("unix", name)
		if err == nil {
			one := &claim{name: name, listener: listener, ended: make(chan struct{})}
			go one.answer()
			return one, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("claim it for this process: %w", err)
		}
		holder, err := holderOf(name)
		switch {
		case errors.Is(err, unix.ECONNREFUSED) && try < 20:
			time.Sleep(time.Millisecond) // it has just ended, or is about to listen
			continue
		case errors.Is(err, unix.ECONNREFUSED):
			return c.stranger(name, "it is taken, and nobody answers there"), nil
		case errors.Is(err, unix.EAGAIN): // one of ours never is: it is emptied at once
			return c.stranger(name, "it is taken, and its queue is full"), nil
		case err != nil: // not to be asked: it is stopped, or very busy
			return nil, fmt.Errorf("%w: stop one of the two, or take the instance out of one configuration", errClaimed)
		case holder.Uid != uint32(os.Geteuid()) && holder.Uid != 0 && holder.Uid != owner:
			return c.stranger(name, fmt.Sprintf("process %d of user %d has it", holder.Pid, holder.Uid)), nil
		}
		return nil, fmt.Errorf("%w (process %d): stop one of the two, or take the instance out of one configuration",
			errClaimed, holder.Pid)
	}
}

// holderOf asks the kernel who listens at a name.
func holderOf(name string) (*unix.Ucred, error) {
	conn, err := net.DialTimeout("unix", name, time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var holder *unix.Ucred
	if failed := raw.Control(func(fd uintptr) {
		holder, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); failed != nil {
		return nil, failed
	}
	return holder, err
}

// stranger stands for a name that cannot be had.
func (c *claims) stranger(name, reason string) *claim {
	c.log.Warn("a second campaign-credsync for the same file would not be noticed", "socket", name, "reason", reason,
		"remedy", "find that process (ss -xlp) and end it, then restart this one")
	return &claim{name: name}
}

// answer takes those who ask off the queue, which would be full at last, until close. All there is to be told, the kernel tells.
func (c *claim) answer() {
	defer close(c.ended)
	for {
		conn, err := c.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // a lack of descriptors or memory, which passes
			time.Sleep(acceptAgain)
		default:
			conn.Close()
		}
	}
}

const acceptAgain = 100 * time.Millisecond

func (c *claim) close() {
	if c.listener != nil {
		c.listener.Close()
		<-c.ended
	}
}

// claimed is a Sink that claims its file before each write. It is for a directory that was missing or another one at the
// start; on all other days it costs a look at the directory.
type claimed struct {
	sync.Sink
	claims *claims
	file   string
}

func (s claimed) Recover(ctx context.Context) error {
	if err := s.claims.ensure(s.file); err != nil {
		return err
	}
	return s.Sink.Recover(ctx)
}

func (s claimed) Apply(ctx context.Context, c credential.Credential) (credential.Attributes, time.Duration, error) {
	if err := s.claims.ensure(s.file); err != nil {
		return nil, 0, err
	}
	return s.Sink.Apply(ctx, c)
}

func (s claimed) Restore(ctx context.Context, wanted credential.Attributes) (credential.Attributes, error) {
	if err := s.claims.ensure(s.file); err != nil {
		return nil, err
	}
	return s.Sink.Restore(ctx, wanted)
}
