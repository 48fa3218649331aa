package sinks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// repair puts the outcome of m in place of what a run of ours damaged: by an exchange, or in place where the file cannot
// be replaced (a bind mount, a hard link, no right to make a file beside it) or there is no room for a copy. It is only for
// content that is of no use as it is and that the pre-image vouches for: a crash in the middle leaves it torn, and the
// next start does this again.
func (c *configFile) repair(ctx context.Context, m merge) error {
	_, err := c.replace(ctx, m)
	if errors.Is(err, credential.ErrCannotSplice) || isFull(err) {
		return c.overwrite(ctx, m)
	}
	return err
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// overwrite writes the outcome of m into the file in place.
func (c *configFile) overwrite(ctx context.Context, m merge) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.locate()
	if err != nil {
		return err
	}
	defer p.close()
	f, content, err := c.openToWrite(ctx, p)
	if err != nil {
		return err
	}
	defer f.close()
	next, err := m(content)
	if err != nil || bytes.Equal(next, content) {
		return err
	}
	return c.writeInPlace(f, next)
}

// readersFor is how long those are waited for who have a file open that nobody writes. Whether a reader or a writer came
// between the look at the file and its opening cannot be told then.
const readersFor = 20 * time.Millisecond

// openToWrite opens the file for reading and writing at a moment when nobody else writes it, and has everybody else wait
// where leases are supported and nobody goes on reading it. What was swapped for the file since it was looked at is not written
// to, nor waited for.
func (c *configFile) openToWrite(ctx context.Context, p place) (*openFile, []byte, error) {
	for began := time.Now(); ; {
		f, err := c.openUnwritten(ctx, p)
		if err != nil {
			return nil, nil, err
		}
		elapsed := time.Since(began)
		if errors.Is(f.lease(unix.F_WRLCK), unix.EAGAIN) && elapsed < readersFor {
			f.close()
			if err := sleep(ctx, writerPause(elapsed)); err != nil {
				return nil, nil, err
			}
			continue
		}
		content, err := f.read()
		if err != nil {
			f.close()
			return nil, nil, c.failed("read", err)
		}
		return f, content, nil
	}
}

// openUnwritten opens for writing a file that nobody else has open for writing. One who opens it in the same microseconds is
// seen by what it changes, if at all.
func (c *configFile) openUnwritten(ctx context.Context, p place) (*openFile, error) {
	quiet, err := c.openQuiet(ctx, p)
	if err != nil {
		return nil, err
	}
	defer quiet.close()
	quiet.unlease() // it would keep ourselves from writing
	f := &openFile{}
	err = retryEINTR(func() (err error) {
		f.fd, err = unix.Openat(p.dir, p.name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	switch {
	case errors.Is(err, unix.EAGAIN): // somebody's lease
		return nil, fmt.Errorf("%w: %s", credential.ErrHeld, c.path)
	case err != nil:
		return nil, c.wrap("open for writing", err)
	}
	err = unix.Fstat(f.fd, &f.stat)
	switch {
	case err != nil:
		err = c.failed("stat", err)
	case f.stat.Dev != quiet.stat.Dev || f.stat.Ino != quiet.stat.Ino || f.stat.Ctim != quiet.stat.Ctim:
		err = fmt.Errorf("%w: %s was replaced or written", credential.ErrHeld, c.path)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// writeInPlace makes next the content of f, and all or nothing as far as room goes: what is lacking is reserved before
// the first byte is written, beyond the end, so that the size tells of nothing that is not there.
func (c *configFile) writeInPlace(f *openFile, next []byte) error {
	err := retryEINTR(func() error { return unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(next))) })
	if err != nil && !isUnsupported(err) {
		return c.failed("make room in", err)
	}
	if err := writeAll(f.fd, next); err != nil {
		return c.failed("write", err)
	}
	if err := retryEINTR(func() error { return unix.Ftruncate(f.fd, int64(len(next))) }); err != nil {
		return c.failed("truncate", err)
	}
	if err := retryEINTR(func() error { return unix.Fsync(f.fd) }); err != nil {
		return c.failed("sync", err)
	}
	return nil
}
