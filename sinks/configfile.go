package sinks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// configFile is an instance's configuration file, which others write too. Its caller is one at a time; beside that, displaced
// files are looked after.
type configFile struct {
	mu                  sync.Mutex      // held by what reads or replaces the file, and guards what is below
	aside               sync.WaitGroup  // displaced files that are looked after
	late                map[string]bool // their names
	path                string
	log                 *slog.Logger
	noLease, noExchange sync.Once       // that this is not to be had on the file system was said
	reported            string          // what was said of rights
	unsettled           bool            // a copy may have been left beside the file
	noLink              bool            // a file without a name cannot be given one here
	said                map[string]bool // of strays
}

// place is the file's directory, held open, and its name there. The name has no slash, and everything is done by it and
// the descriptor, without following links: so nothing is ever opened, changed or removed outside of that directory,
// whatever is put in its place meanwhile.
type place struct {
	dir   int
	name  string
	owner uint32 // of the directory, as is mode
	mode  uint32
}

// heldFor is how long a writer is waited for before it is told.
const heldFor = 5 * time.Second

// quietFor is how long a file must have been left alone where leases cannot tell whether somebody is writing.
const quietFor = 200 * time.Millisecond

// wrap is for steps that look for the file: it names the step and the path, and turns "not there" into credential.ErrMissing.
func (c *configFile) wrap(step string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", credential.ErrMissing, c.path)
	}
	return fmt.Errorf("%s %s: %w", step, c.path, err)
}

// failed is for all other steps. What is forbidden here leads to another way (credential.ErrCannotSplice).
func (c *configFile) failed(step string, err error) error {
	if isForbidden(err) {
		return fmt.Errorf("%w: %s %s: %w", credential.ErrCannotSplice, step, c.path, err)
	}
	return fmt.Errorf("%s %s: %w", step, c.path, err)
}

// locate opens the directory. A symbolic link is followed as long as it stays in the directory, where the daemon
// watches; one that leads out of it is refused, and so is a directory that everybody may write.
func (c *configFile) locate() (place, error) {
	p := place{name: filepath.Base(c.path)}
	err := retryEINTR(func() (err error) {
		p.dir, err = unix.Open(filepath.Dir(c.path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return place{}, c.wrap("open directory of", err)
	}
	if err := c.checkDirectory(&p); err != nil {
		p.close()
		return place{}, err
	}
	target := make([]byte, unix.PathMax)
	for range 8 {
		n, err := unix.Readlinkat(p.dir, p.name, target)
		if errors.Is(err, unix.EINVAL) {
			return p, nil // no link
		}
		if err != nil {
			p.close()
			return place{}, c.wrap("find", err)
		}
		p.name = string(target[:n])
		if filepath.IsAbs(p.name) && filepath.Dir(p.name) == filepath.Dir(c.path) {
			p.name = filepath.Base(p.name)
		}
		if strings.ContainsRune(p.name, '/') || p.name == ".." || p.name == "." {
			break
		}
	}
	p.close()
	return place{}, fmt.Errorf("%s is a symbolic link that leads out of its directory: name the file itself in config_file", c.path)
}

func (p place) close() { unix.Close(p.dir) }

// open opens the file for reading, without waiting.
func (c *configFile) open(p place) (*openFile, error) {
	var fd int
	err := retryEINTR(func() (err error) {
		fd, err = unix.Openat(p.dir, p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, c.wrap("open", err)
	}
	f := &openFile{fd: fd}
	if err := unix.Fstat(fd, &f.stat); err != nil {
		f.close()
		return nil, c.wrap("stat", err)
	}
	if f.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		f.close()
		return nil, fmt.Errorf("%s is not a regular file", c.path)
	}
	return f, nil
}

// openQuiet opens the file at a moment when nobody is writing to it, and holds it so where leases are supported. It
// waits up to heldFor for a writer to come to an end, then returns credential.ErrHeld.
func (c *configFile) openQuiet(ctx context.Context, p place) (*openFile, error) {
	for began := time.Now(); ; {
		f, err := c.open(p)
		elapsed := time.Since(began)
		if errors.Is(err, unix.EAGAIN) && elapsed <= heldFor { // somebody's write lease, which is given up now
			if err := sleep(ctx, writerPause(elapsed)); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		err = f.lease(unix.F_RDLCK)
		if err == nil {
			// The size and times of before the lease may be those of a write that has ended since.
			if err = unix.Fstat(f.fd, &f.stat); err == nil {
				c.reportRights(p, f)
				return f, nil
			}
			f.close()
			return nil, c.wrap("stat", err)
		}
		wait := writerPause(elapsed)
		if !errors.Is(err, unix.EAGAIN) {
			if wait = c.withoutLease(f, err); wait == 0 {
				c.reportRights(p, f)
				return f, nil
			}
		}
		f.close()
		if elapsed > heldFor {
			return nil, fmt.Errorf("%w: %s", credential.ErrHeld, c.path)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// writerPause is how long to wait until looking again whether a writer has come to its end, after having waited so long:
// not at all at first, as most writers are done within a few milliseconds and falling asleep takes as long as what is
// left of their work. inotify could tell, but closing an inotify descriptor takes the kernel 16 ms (measured); a look
// takes 10 µs.
func writerPause(waited time.Duration) time.Duration {
	if waited < 4*time.Millisecond {
		return 0
	}
	return min(max(waited/64, 20*time.Microsecond), 5*time.Millisecond)
}

// withoutLease tells how long a file that cannot be leased, because of reason, has yet to be left alone.
func (c *configFile) withoutLease(f *openFile, reason error) time.Duration {
	c.noLease.Do(func() {
		c.log.Warn("leases are not supported here (file system, or another owner): waiting for quiet moments instead",
			"path", c.path, "reason", reason)
	})
	return max(0, quietFor-time.Since(time.Unix(f.stat.Ctim.Unix())).Abs())
}

// sleep waits for d or the end of ctx. The runtime's timers are only as fine as a millisecond when nothing else is to
// be done, so shorter waits are left to the kernel.
func sleep(ctx context.Context, d time.Duration) error {
	if d == 0 {
		runtime.Gosched()
		return ctx.Err()
	}
	if d < time.Millisecond {
		short := unix.NsecToTimespec(d.Nanoseconds())
		unix.Nanosleep(&short, nil)
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sync returns when what is at the path now is on disk, whoever wrote it.
func (c *configFile) sync() error {
	p, err := c.locate()
	if err != nil {
		return err
	}
	defer p.close()
	f, err := c.open(p)
	if err != nil {
		return err
	}
	defer f.close()
	for _, fd := range []int{f.fd, p.dir} {
		if err := retryEINTR(func() error { return unix.Fsync(fd) }); err != nil {
			return c.wrap("sync", err)
		}
	}
	return nil
}

// read returns the content at a quiet moment and the file's status.
func (c *configFile) read(ctx context.Context) ([]byte, unix.Stat_t, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.locate()
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	defer p.close()
	f, err := c.openQuiet(ctx, p)
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	defer f.close()
	data, err := f.read()
	if err != nil {
		return nil, unix.Stat_t{}, c.wrap("read", err)
	}
	return data, f.stat, nil
}
