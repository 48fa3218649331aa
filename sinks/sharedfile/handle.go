package sharedfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// openFile is a file held open, since a lease and a judgement belong to the very inode, whatever the path shows later.
type openFile struct {
	*os.File
	name   string      // in the directory, where we have put it or found it last; empty: it has none yet
	stat   unix.Stat_t // when it was opened
	leased int         // kind of the lease that was taken: whoever opens the file for writing (F_RDLCK), or at all (F_WRLCK), waits. F_UNLCK: none
}

// open opens a regular file of the directory for reading.
func (p place) open(name string) (*openFile, error) {
	f, err := p.openAt(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if f.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, errors.New("not a regular file")
	}
	return f, nil
}

// quietFor is how long a file must have been left alone where leases cannot tell whether somebody is writing.
const quietFor = 200 * time.Millisecond

// atWork is how long a writer is looked at without a pause: most are done by then, and waking up takes longer than what is left of
// their work.
const atWork = 4 * time.Millisecond

// openQuiet opens the file at a moment when nobody is writing to it, and holds it so where leases are supported. It waits for
// a writer until ctx ends.
func (p place) openQuiet(ctx context.Context) (*openFile, error) {
	for began := time.Now(); ; {
		f, err := p.tryQuiet()
		if f != nil || err != nil {
			return f, err
		}
		for busy := true; busy; busy = p.beingWritten() {
			if waited := time.Since(began); waited < atWork {
				runtime.Gosched()
			} else {
				time.Sleep(min(waited/64, 5*time.Millisecond))
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
		}
	}
}

// beingWritten is a look at a writer that leaves hardly any garbage. Hundreds of looks by tryQuiet leave so much that its collection
// delays reverts of files written in pieces. inotify could tell, but closing an inotify descriptor takes the kernel 16 ms (measured).
func (p place) beingWritten() bool {
	fd, err := unix.Openat(int(p.dir.Fd()), p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}

// tryQuiet is openQuiet without waiting: it returns nil while somebody is writing.
func (p place) tryQuiet() (*openFile, error) {
	f, err := p.open(p.name)
	if errors.Is(err, unix.EAGAIN) { // somebody's write lease, which is given up now
		return nil, nil
	}
	if err != nil {
		return nil, p.wrap("open", err)
	}
	refused := f.lease(unix.F_RDLCK)
	if refused != nil && !errors.Is(refused, unix.EAGAIN) {
		p.logOnce(slog.LevelWarn, "leases are not supported here (file system, or another owner): waiting for quiet moments instead",
			p.path, "reason", refused)
		if time.Since(time.Unix(f.stat.Ctim.Unix())).Abs() >= quietFor {
			refused = nil
		}
	}
	if refused != nil {
		f.Close()
		return nil, nil
	}
	// The size and times of before the lease may be those of a write that has ended since.
	if err := unix.Fstat(int(f.Fd()), &f.stat); err != nil {
		f.Close()
		return nil, p.wrap("stat", err)
	}
	p.warnOfRights(f)
	return f, nil
}

// read returns the whole content.
func (f *openFile) read() ([]byte, error) {
	content := bytes.NewBuffer(make([]byte, 0, min(f.stat.Size, MaxSize)+bytes.MinRead))
	_, err := content.ReadFrom(io.NewSectionReader(f, 0, MaxSize+1))
	if err == nil && content.Len() > MaxSize {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), MaxSize)
	}
	return content.Bytes(), err
}

// write makes content all that the file holds.
func (f *openFile) write(content []byte) error {
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(content)))
}

// lease takes a lease of a kind, or with F_UNLCK lets those who wait for it go on. EAGAIN means that somebody has the file open (for
// a read lease: for writing); anything else that a lease is not to be had here at all (not the owner, or a file system without leases).
func (f *openFile) lease(kind int) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, kind)
	if err == nil {
		f.leased = kind
	}
	return err
}

// leaseBroken reports whether somebody waits in open() for the lease to go.
func (f *openFile) leaseBroken() bool {
	if f.leased == unix.F_UNLCK {
		return false
	}
	kind, err := unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0)
	return err == nil && kind != f.leased
}
