package sharedfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// overwrite writes the outcome of merge into the file in place.
func (s *File) overwrite(ctx context.Context, merge Merge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.locate()
	if err != nil {
		return err
	}
	defer p.close()
	f, content, err := s.openToWrite(ctx, p)
	if err != nil {
		return err
	}
	defer f.close()
	next, err := merge(content)
	if err != nil || bytes.Equal(next, content) {
		return err
	}
	// All or nothing as far as room goes: what is lacking is reserved beyond the end before the first byte is written.
	err = retryEINTR(func() error { return unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(next))) })
	if err != nil && !isUnsupported(err) {
		return s.failed("make room in", err)
	}
	if err := writeAll(f.fd, next); err != nil {
		return s.failed("write", err)
	}
	if err := retryEINTR(func() error { return unix.Ftruncate(f.fd, int64(len(next))) }); err != nil {
		return s.failed("truncate", err)
	}
	if err := retryEINTR(func() error { return unix.Fsync(f.fd) }); err != nil {
		return s.failed("sync", err)
	}
	return nil
}

// readersFor is how long those are waited for who have a file open that nobody writes. Whether a reader or a writer came
// between the look at the file and its opening cannot be told then.
const readersFor = 20 * time.Millisecond

// openToWrite opens the file for reading and writing at a moment when nobody else writes it, and has everybody else wait
// where leases are supported and nobody goes on reading it. What was swapped for the file since it was looked at is not written
// to, nor waited for.
func (s *File) openToWrite(ctx context.Context, p place) (*openFile, []byte, error) {
	for began := time.Now(); ; {
		f, err := s.openUnwritten(ctx, p)
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
			return nil, nil, s.failed("read", err)
		}
		return f, content, nil
	}
}

// openUnwritten opens for writing a file that nobody else has open for writing. One who opens it in the same microseconds is
// seen by what it changes, if at all.
func (s *File) openUnwritten(ctx context.Context, p place) (*openFile, error) {
	quiet, err := s.openQuiet(ctx, p, heldFor)
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
		return nil, fmt.Errorf("%w: %s", credential.ErrHeld, s.path)
	case err != nil:
		return nil, s.wrap("open for writing", err)
	}
	if err = unix.Fstat(f.fd, &f.stat); err != nil {
		err = s.failed("stat", err)
	} else if f.stat.Dev != quiet.stat.Dev || f.stat.Ino != quiet.stat.Ino || f.stat.Ctim != quiet.stat.Ctim {
		err = fmt.Errorf("%w: %s was replaced or written", credential.ErrHeld, s.path)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}
