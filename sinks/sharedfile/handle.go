package sharedfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// openFile is a regular file held open by descriptor. Plain descriptors, since a lease and a judgement belong to the
// very inode that was opened, whatever the path shows later.
type openFile struct {
	fd   int
	stat unix.Stat_t // when it was opened
	// leased: a lease is held. Whoever opens the file for writing (kind F_RDLCK), or at all (F_WRLCK), waits until it is gone.
	leased bool
	kind   int
}

// open opens the file for reading, without waiting.
func (s *File) open(p place) (*openFile, error) {
	f := &openFile{}
	err := retryEINTR(func() (err error) {
		f.fd, err = unix.Openat(p.dir, p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, s.wrap("open", err)
	}
	if err = unix.Fstat(f.fd, &f.stat); err != nil {
		err = s.wrap("stat", err)
	} else if f.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%s is not a regular file", s.path)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// quietFor is how long a file must have been left alone where leases cannot tell whether somebody is writing.
const quietFor = 200 * time.Millisecond

// openQuiet opens the file at a moment when nobody is writing to it, and holds it so where leases are supported. It
// waits up to limit for a writer to come to an end, then returns credential.ErrHeld.
func (s *File) openQuiet(ctx context.Context, p place, limit time.Duration) (*openFile, error) {
	for began := time.Now(); ; {
		f, wait, err := s.tryQuiet(p, time.Since(began))
		if err != nil || f != nil {
			return f, err
		}
		if time.Since(began) > limit {
			return nil, fmt.Errorf("%w: %s", credential.ErrHeld, s.path)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// tryQuiet returns the file, or how long to wait before the next try.
func (s *File) tryQuiet(p place, waited time.Duration) (*openFile, time.Duration, error) {
	pause := writerPause(waited)
	f, err := s.open(p)
	if errors.Is(err, unix.EAGAIN) { // somebody's write lease, which is given up now
		return nil, pause, nil
	}
	if err != nil {
		return nil, 0, err
	}
	refused := f.lease(unix.F_RDLCK)
	if refused != nil && !errors.Is(refused, unix.EAGAIN) {
		s.logOnce(slog.LevelWarn, "leases are not supported here (file system, or another owner): waiting for quiet moments instead",
			s.path, "reason", refused)
		if pause = max(0, quietFor-time.Since(time.Unix(f.stat.Ctim.Unix())).Abs()); pause == 0 {
			refused = nil
		}
	}
	if refused != nil {
		f.close()
		return nil, pause, nil
	}
	if f.leased { // the size and times of before the lease may be those of a write that has ended since
		if err := unix.Fstat(f.fd, &f.stat); err != nil {
			f.close()
			return nil, 0, s.wrap("stat", err)
		}
	}
	s.reportRights(p, f)
	return f, 0, nil
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

// sleep waits for d or the end of ctx. The runtime's timers are only as fine as a millisecond when nothing else is to
// be done, so shorter waits are left to the kernel.
func sleep(ctx context.Context, d time.Duration) error {
	switch {
	case d == 0:
		runtime.Gosched()
	case d < time.Millisecond:
		short := unix.NsecToTimespec(d.Nanoseconds())
		unix.Nanosleep(&short, nil)
	default:
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func (f *openFile) close() {
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

// read returns the whole content.
func (f *openFile) read() ([]byte, error) {
	data := make([]byte, 0, min(f.stat.Size, MaxSize)+1)
	for {
		n, err := unix.Pread(f.fd, data[len(data):cap(data)], int64(len(data)))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return data, nil
		}
		if data = data[:len(data)+n]; len(data) > MaxSize {
			return nil, fmt.Errorf("is larger than %d bytes", MaxSize)
		}
		if len(data) == cap(data) {
			data = slices.Grow(data, max(4096, len(data)))
		}
	}
}

// writeAll writes content to fd from its start on.
func writeAll(fd int, content []byte) error {
	for offset := 0; offset < len(content); {
		n, err := unix.Pwrite(fd, content[offset:], int64(offset))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		offset += n
	}
	return nil
}

// lease takes a lease of a kind. EAGAIN means that somebody has the file open (for a read lease: for writing); anything else
// that a lease is not to be had here at all (not the owner, or a file system without leases).
func (f *openFile) lease(kind int) error {
	_, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETLEASE, kind)
	f.leased, f.kind = err == nil, kind
	return err
}

// leaseBroken reports whether somebody waits in open() for the lease to go.
func (f *openFile) leaseBroken() bool {
	if !f.leased {
		return false
	}
	kind, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETLEASE, 0)
	return err != nil || kind != f.kind
}

// unlease lets those who wait for the lease go on.
func (f *openFile) unlease() {
	if f.leased {
		unix.FcntlInt(uintptr(f.fd), unix.F_SETLEASE, unix.F_UNLCK)
		f.leased = false
	}
}

// linked reports whether the file has more than one name. It cannot be replaced then: its names would part.
func (f *openFile) linked() bool {
	var now unix.Stat_t
	return unix.Fstat(f.fd, &now) == nil && now.Nlink > 1
}

// isUnsupported reports that the file system, or the kernel, does not have what was asked for.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
}

// isForbidden reports that a step of a replacement is not possible here, now or later: the kernel, a policy, a flag of the file
// or the length of its name does not allow it. A file system that is read-only for now allows nothing at all, so there is no other way to take.
func isForbidden(err error) bool {
	for _, lasting := range []error{unix.EPERM, unix.EACCES, unix.EXDEV, unix.EMLINK, unix.EFBIG, unix.ENAMETOOLONG} {
		if errors.Is(err, lasting) {
			return true
		}
	}
	return isUnsupported(err)
}

// retryEINTR calls f until it is not interrupted.
func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
