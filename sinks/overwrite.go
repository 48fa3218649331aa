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

// openToWrite opens the file for reading and writing at a moment when nobody else has it open, and has everybody else
// wait where leases are supported. What was swapped for the file since it was looked at is not written to, nor waited for.
func (c *configFile) openToWrite(ctx context.Context, p place) (*openFile, []byte, error) {
	quiet, err := c.openQuiet(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	quiet.unlease() // it would keep ourselves from writing
	var fd int
	err = retryEINTR(func() (err error) {
		fd, err = unix.Openat(p.dir, p.name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		quiet.close()
		if errors.Is(err, unix.EAGAIN) { // somebody's lease
			return nil, nil, fmt.Errorf("%w: %s", credential.ErrHeld, c.path)
		}
		return nil, nil, c.wrap("open for writing", err)
	}
	f := &openFile{fd: fd}
	err = unix.Fstat(fd, &f.stat)
	same := f.stat.Dev == quiet.stat.Dev && f.stat.Ino == quiet.stat.Ino // compared while quiet holds on to its number
	quiet.close()
	var content []byte
	switch {
	case err != nil:
		err = c.wrap("stat", err)
	case !same:
		err = fmt.Errorf("%w: %s was replaced", credential.ErrHeld, c.path)
	default:
		if err = c.keepOthersOut(ctx, f); err == nil {
			if content, err = f.read(); err != nil {
				err = c.wrap("read", err)
			}
		}
	}
	if err != nil {
		f.close()
		return nil, nil, err
	}
	return f, content, nil
}

// keepOthersOut waits until nobody else has f open, and takes a write lease. Where there are none, openQuiet has waited
// for a quiet moment, which has to do.
func (c *configFile) keepOthersOut(ctx context.Context, f *openFile) error {
	for began := time.Now(); ; {
		_, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETLEASE, unix.F_WRLCK)
		if !errors.Is(err, unix.EAGAIN) {
			return nil
		}
		elapsed := time.Since(began)
		if elapsed > heldFor {
			return fmt.Errorf("%w: %s", credential.ErrHeld, c.path)
		}
		if err := sleep(ctx, writerPause(elapsed)); err != nil {
			return err
		}
	}
}

// writeInPlace makes next the content of f, and all or nothing as far as room goes: what is lacking is reserved before
// the first byte is written, beyond the end, so that the size tells of nothing that is not there.
func (c *configFile) writeInPlace(f *openFile, next []byte) error {
	err := retryEINTR(func() error { return unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(next))) })
	if err != nil && !isUnsupported(err) {
		return c.wrap("make room in", err)
	}
	if err := writeAll(f.fd, next); err != nil {
		return c.wrap("write", err)
	}
	if err := retryEINTR(func() error { return unix.Ftruncate(f.fd, int64(len(next))) }); err != nil {
		return c.wrap("truncate", err)
	}
	if err := retryEINTR(func() error { return unix.Fsync(f.fd) }); err != nil {
		return c.wrap("sync", err)
	}
	return nil
}
