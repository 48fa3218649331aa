// Package sharedfile changes a file that other programs write too, and loses nobody's update.
//
// The file is replaced by exchanging it with a finished copy beside it (renameat2 RENAME_EXCHANGE), so that the displaced file is
// in our hands and can be judged: when it is not exactly what the copy was made from, somebody's update is in it, and it is put
// back. Leases close the gaps that are left:
//
//   - a read lease on what was read: it is refused while anybody has the file open for writing, and who opens it for writing
//     from then on waits, visibly to us, until we are done;
//   - a write lease on our copy until the displaced file was judged: who opens the path meanwhile waits, so nobody starts from a
//     copy that is taken back. A copy that had to be taken back is rewritten with the update in it and exchanged again, lease
//     held, so that who has found it at the path ends up there.
//
// An open() finds the inode first and looks for leases then; in between, its process may have to wait for a processor. So the
// leases are kept until the file is at the path again, or, for what was displaced for good, a little longer (late.go).
//
// Where leases or the exchange are not to be had (network file systems, another owner), it waits for a quiet moment instead, and
// an update in the last microseconds is lost.
package sharedfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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

	mu        sync.Mutex      // held by what reads or replaces the file, and guards what is below
	aside     sync.WaitGroup  // displaced files that are guarded
	late      map[string]bool // their names
	said      map[string]bool // what is logged only once
	rights    string          // what was last said of rights
	unsettled bool            // a copy may have been left beside the file
	noLink    bool            // a file without a name cannot be given one here
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
	// heldFor is how long a writer is waited for before that is told.
	heldFor = 5 * time.Second
	// MaxSize is how many bytes of a file are read at most.
	MaxSize = 16 << 20
)

// New names the file at path, which is absolute. check tells what is wrong with a content that is not whole.
func New(path string, check func(content []byte) error, log *slog.Logger) *File {
	return &File{path: path, check: check, log: log, late: map[string]bool{}, said: map[string]bool{}}
}

// Read returns the content at a moment when nobody is writing the file. It waits for a writer for 5 s, then returns
// [credential.ErrHeld]. Without a file it returns [credential.ErrMissing].
func (s *File) Read(ctx context.Context) ([]byte, Stamp, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.locate()
	if err != nil {
		return nil, Stamp{}, err
	}
	defer p.close()
	f, err := s.openQuiet(ctx, p, heldFor)
	if err != nil {
		return nil, Stamp{}, err
	}
	defer f.close()
	data, err := f.read()
	if err != nil {
		return nil, Stamp{}, s.wrap("read", err)
	}
	return data, Stamp{f.stat.Ino, f.stat.Size, f.stat.Mtim}, nil
}

// Update puts the outcome of merge in place of the content. It starts again, from what is there by then, whenever somebody else
// came first. Owner, group, mode and extended attributes stay. Errors: those of merge and of Read, and
// [credential.ErrCannotSplice] where the file cannot be replaced (a mount point, a hard link, no right to make a file beside it).
func (s *File) Update(ctx context.Context, merge Merge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.locate()
	if err != nil {
		return err
	}
	defer p.close()
	if s.unsettled { // what cannot be settled now either is no reason to leave the file as it is
		s.settleStrays(ctx, p)
	}
	r := &replacement{File: s, place: p, merge: merge}
	defer r.release()
	return r.run(ctx)
}

// Repair is Update for content that is of no use as it is and of which there is another copy: where the file cannot be replaced,
// or there is no room for a copy, it is written in place. A crash in the middle leaves it torn.
func (s *File) Repair(ctx context.Context, merge Merge) error {
	err := s.Update(ctx, merge)
	if errors.Is(err, credential.ErrCannotSplice) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return s.overwrite(ctx, merge)
	}
	return err
}

// Sync returns when what is at the path now is on disk, whoever wrote it.
func (s *File) Sync() error {
	p, err := s.locate()
	if err != nil {
		return err
	}
	defer p.close()
	f, err := s.open(p)
	if err != nil {
		return err
	}
	defer f.close()
	for _, fd := range []int{f.fd, p.dir} {
		if err := retryEINTR(func() error { return unix.Fsync(fd) }); err != nil {
			return s.wrap("sync", err)
		}
	}
	return nil
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
	go func() { s.aside.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// wrap is for steps that look for the file: it names the step and the path, and turns "not there" into credential.ErrMissing.
func (s *File) wrap(step string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", credential.ErrMissing, s.path)
	}
	return fmt.Errorf("%s %s: %w", step, s.path, err)
}

// failed is for all other steps. What is forbidden here leads to another way (credential.ErrCannotSplice).
func (s *File) failed(step string, err error) error {
	if isForbidden(err) {
		return fmt.Errorf("%w: %s %s: %w", credential.ErrCannotSplice, step, s.path, err)
	}
	return fmt.Errorf("%s %s: %w", step, s.path, err)
}

// logOnce logs a message about a path once.
func (s *File) logOnce(level slog.Level, message, path string, args ...any) {
	if !s.said[message+path] {
		s.said[message+path] = true
		s.log.Log(context.Background(), level, message, append([]any{"path", path}, args...)...)
	}
}
