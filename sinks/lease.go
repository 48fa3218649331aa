package sinks

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
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

// maxFileSize bounds what is read into memory. Real instance files have some KiB.
const maxFileSize = 16 << 20

func (f *openFile) close() {
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

// read returns the whole content.
func (f *openFile) read() ([]byte, error) {
	data := make([]byte, 0, min(f.stat.Size, maxFileSize)+1)
	for {
		if len(data) == cap(data) {
			if len(data) > maxFileSize {
				return nil, fmt.Errorf("is larger than %d bytes", maxFileSize)
			}
			data = append(data, make([]byte, max(4096, len(data)))...)[:len(data)]
		}
		n, err := unix.Pread(f.fd, data[len(data):cap(data)], int64(len(data)))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return data, nil
		}
		data = data[:len(data)+n]
	}
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

// linked reports whether the file has more than one name. It cannot be replaced then: its names would part.
func (f *openFile) linked() bool {
	var now unix.Stat_t
	return unix.Fstat(f.fd, &now) == nil && now.Nlink > 1
}

// unlease lets those who wait for the lease go on.
func (f *openFile) unlease() {
	if f.leased {
		unix.FcntlInt(uintptr(f.fd), unix.F_SETLEASE, unix.F_UNLCK)
		f.leased = false
	}
}

// writeAll writes data to fd from its start on.
func writeAll(fd int, data []byte) error {
	for offset := 0; offset < len(data); {
		n, err := unix.Pwrite(fd, data[offset:], int64(offset))
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
