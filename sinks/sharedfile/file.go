// Package sharedfile changes a file that other programs write too, and loses nobody's update.
//
// The file is replaced by exchanging it with a finished copy beside it (renameat2 RENAME_EXCHANGE), so that the displaced file is
// in our hands and can be judged: when it is not exactly what the copy was made from, somebody's update is in it, and it is
// exchanged back. Leases close the gaps that are left:
//
//   - a read lease on what was read: it is refused while anybody has the file open for writing, and whoever opens it for writing
//     from then on waits, visibly to us, until we are done;
//   - a write lease on our copy until the displaced file was judged: whoever opens the path meanwhile waits, so nobody starts from a
//     copy that is taken back.
//
// Whatever was at the path and is beside it now is guarded a little longer (guard.go). The steps, with A for what is there and B for
// what comes in its place:
//
//	    the path shows       beside it, .config-prod.xml.credsync-<sum of A>-<sum of B>-…
//	1   A   read lease                                read A; B = merge(A)
//	2   A   read lease       B   write lease          B whole and synced, with the rights of A, then named
//	3   B   write lease      A   read lease           exchange
//	4   judge: is the displaced file the A that was read, its lease unbroken?
//	      yes   B's lease is released, the directory synced
//	      no    exchanged back: somebody's update is at the path again. B is kept as in 5. Start at 1
//	5   B                    A   read lease           kept for 0.25 s: does anybody wait to open it?
//	      no    it is removed
//	      yes   exchanged back, while they wait; B gets the path's content first
//
// Where leases or the exchange are not to be had (network file systems, another owner), it waits for a quiet moment instead, and
// an update in the last microseconds is lost.
package sharedfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// File is a file that others write too. Its methods are called one at a time; beside them, displaced files are guarded.
type File struct {
	path  string
	check func(content []byte) error
	log   *slog.Logger

	guards    sync.WaitGroup
	logged    sync.Map           // what is logged only once
	mu        sync.Mutex         // held by what reads or replaces the file, and guards what is below
	guarded   map[*openFile]bool // files beside the path that somebody may still open
	unsettled bool               // a copy may have been left beside the file, as by an earlier process
}

// Merge turns the current content into the wanted one. Returning the same bytes means that nothing is to be done. It may be called
// several times, with what is there by then.
type Merge func(current []byte) ([]byte, error)

// Stamp tells whether a file was written or replaced between two reads.
type Stamp struct {
	inode    uint64
	size     int64
	modified unix.Timespec
}

const (
	// heldFor is how long a writer is waited for.
	heldFor = 5 * time.Second
	// MaxSize is how many bytes of a file are read at most.
	MaxSize = 16 << 20
)

// New names the file at path, which is absolute. check tells what is wrong with a content that is not whole.
func New(path string, check func(content []byte) error, log *slog.Logger) *File {
	return &File{path: path, check: check, log: log, guarded: map[*openFile]bool{}, unsettled: true}
}

// Read returns the content at a moment when nobody is writing the file. It waits for a writer for 5 s, then returns
// [credential.ErrBusy]. Without a file it returns [credential.ErrMissing].
func (s *File) Read(ctx context.Context) (content []byte, stamp Stamp, err error) {
	err = s.with(ctx, func(ctx context.Context, p place) error {
		f, err := p.openQuiet(ctx)
		if err != nil {
			return err
		}
		defer f.Close()
		stamp = Stamp{f.stat.Ino, f.stat.Size, f.stat.Mtim}
		content, err = f.read()
		return err
	})
	return content, stamp, err
}

// Update puts the outcome of merge in place of the content. It starts again, from what is there by then, whenever somebody else
// came first. Owner, group, mode and extended attributes stay. Errors: those of merge and of Read, and
// [credential.ErrCannotSplice] where the file cannot be replaced (a mount point, a hard link, no right to make a file beside it).
func (s *File) Update(ctx context.Context, merge Merge) error {
	return s.with(ctx, func(ctx context.Context, p place) error {
		if s.unsettled { // what cannot be settled now either is no reason to leave the file as it is
			p.settleStrays(ctx)
		}
		for {
			for len(s.guarded) >= 2*maxGuarded && ctx.Err() == nil {
				s.mu.Unlock()
				time.Sleep(5 * time.Millisecond)
				s.mu.Lock()
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			done, err := p.update(ctx, merge)
			if done || err != nil {
				return err
			}
		}
	})
}

// Repair is Update for content that does not work as it is and of which there is another copy: where the file cannot be replaced,
// or there is no room for a copy, it is written in place. A crash in the middle leaves it torn.
func (s *File) Repair(ctx context.Context, merge Merge) error {
	err := s.Update(ctx, merge)
	if errors.Is(err, credential.ErrCannotSplice) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return s.with(ctx, func(ctx context.Context, p place) error { return p.overwrite(ctx, merge) })
	}
	return err
}

// overwrite writes the outcome of merge into the file in place. A writer who opens the file in the microseconds between the look at
// it and its opening is not seen where somebody goes on reading it.
func (p place) overwrite(ctx context.Context, merge Merge) error {
	quiet, err := p.openQuiet(ctx)
	if err != nil {
		return err
	}
	quiet.Close() // its lease would keep ourselves from writing
	f, err := p.openAt(p.name, unix.O_RDWR)
	if errors.Is(err, unix.EAGAIN) { // somebody's lease, which is given up now
		return fmt.Errorf("%w: %s", credential.ErrBusy, p.path)
	}
	if err != nil {
		return p.wrap("open for writing", err)
	}
	defer f.Close()
	f.lease(unix.F_WRLCK)
	if !sameInode(f.stat, quiet.stat) || f.stat.Ctim != quiet.stat.Ctim {
		return fmt.Errorf("%w: %s was replaced or written", credential.ErrBusy, p.path)
	}
	content, err := f.read()
	if err != nil {
		return err
	}
	next, err := merge(content)
	if err != nil || bytes.Equal(next, content) {
		return err
	}
	// All or nothing as far as room goes: what is lacking is reserved beyond the end before the first byte is written.
	err = retryEINTR(func() error { return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(next))) })
	if err != nil && !isForbidden(err) {
		return p.wrap("make room in", err)
	}
	if err := f.write(next); err != nil {
		return p.wrap("write", err)
	}
	return f.Sync()
}

// Sync returns when what is at the path now is on disk, whoever wrote it.
func (s *File) Sync() error {
	p, err := s.locate()
	if err != nil {
		return err
	}
	defer p.dir.Close()
	f, err := p.open(p.name)
	if err != nil {
		return s.wrap("open", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return s.wrap("sync", err)
	}
	return p.sync()
}

// ChangedAt is the file's change time, which the kernel sets with every write and with a rename of the file; zero where it cannot
// be told.
func (s *File) ChangedAt() time.Time {
	var stat unix.Stat_t
	if err := retryEINTR(func() error { return unix.Stat(s.path, &stat) }); err != nil {
		return time.Time{}
	}
	return time.Unix(stat.Ctim.Unix())
}

// Wait returns when no displaced file is guarded any more, within 0.3 s where nobody is writing, or when ctx ends.
// No other method may be called meanwhile.
func (s *File) Wait(ctx context.Context) {
	done := make(chan struct{})
	go func() { s.guards.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// with does something with the file, and ends its waits for others after heldFor.
func (s *File) with(ctx context.Context, do func(ctx context.Context, p place) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.locate()
	if err != nil {
		return err
	}
	defer p.dir.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, heldFor, fmt.Errorf("%w: %s", credential.ErrBusy, s.path))
	defer cancel()
	return do(ctx, p)
}

// wrap is for steps that look for the file: it names the step and the path, and turns "not there" into credential.ErrMissing.
func (s *File) wrap(step string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", credential.ErrMissing, s.path)
	}
	return fmt.Errorf("%s %s: %w", step, s.path, err)
}

// failed is for the steps of a replacement. What is forbidden here leads to another way (credential.ErrCannotSplice).
func (s *File) failed(step string, err error) error {
	if isForbidden(err) {
		return fmt.Errorf("%w: %s %s: %w", credential.ErrCannotSplice, step, s.path, err)
	}
	return fmt.Errorf("%s %s: %w", step, s.path, err)
}

// isForbidden reports that a step is not possible here, now or later: the kernel, a policy, a flag of the file or the length of its
// name does not allow it. A file system that is read-only for now allows nothing at all, so there is no other way to take.
func isForbidden(err error) bool {
	lasting := []error{unix.EPERM, unix.EACCES, unix.EXDEV, unix.EFBIG, unix.ENAMETOOLONG, unix.ELOOP,
		unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP}
	return slices.ContainsFunc(lasting, func(errno error) bool { return errors.Is(err, errno) })
}

// logOnce logs a message about a path once.
func (s *File) logOnce(level slog.Level, message, path string, args ...any) {
	if _, before := s.logged.LoadOrStore(message+path, true); !before {
		s.log.Log(context.Background(), level, message, append([]any{"path", path}, args...)...)
	}
}

// retryEINTR calls f until it is not interrupted.
func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
