package sharedfile

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// fileCopy is our finished copy of the configuration file, beside it. Its name tells what it was made from and what was
// written, so that after a crash it can be told from somebody's update that was displaced to that name.
type fileCopy struct {
	*openFile // for writing; carries a write lease
	name      string
	size      int64 // at most
	shown     bool  // it was at the path: somebody may have found it there who opens it only now
}

// copyPrefix and the names made from it start with a dot, so that nothing that reads conf/config-*.xml takes them.
func copyPrefix(name string) string { return "." + name + ".credsync-" }

const unfinished = "unfinished"

func copyName(name string, from, next []byte) string {
	return copyPrefix(name) + contentSum(from) + "-" + contentSum(next)
}

// contentSum identifies a content among the few that a file has had.
func contentSum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}

// newCopy writes next to a file of its own with the owner, group, mode and extended attributes of old, and takes a write
// lease on it.
func (s *File) newCopy(p place, old *openFile, content, next []byte) (*fileCopy, error) {
	k, err := s.createCopy(p, old.stat.Mode&0o777)
	if err != nil {
		return nil, err
	}
	if err := s.fillCopy(p, k, old, content, next); err != nil {
		s.discard(p, k.name)
		k.close()
		if errors.Is(err, errNoLink) && !s.noLink {
			s.noLink = true
			return s.newCopy(p, old, content, next)
		}
		return nil, err
	}
	k.lease(unix.F_WRLCK) // there is none where leases are not supported; openQuiet has said so
	return k, nil
}

// createCopy makes an empty copy: without a name where the file system can do that, and one can be given later (noLink), so that
// nobody who watches the directory is woken by what happens to it (we do watch it), else as a draft.
func (s *File) createCopy(p place, mode uint32) (*fileCopy, error) {
	k, err := &fileCopy{openFile: &openFile{}}, errNoLink
	if !s.noLink {
		err = retryEINTR(func() (err error) {
			k.fd, err = unix.Openat(p.dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, mode)
			return err
		})
	}
	if err != nil {
		k.name, k.fd, err = p.createDraft()
	}
	if err != nil {
		return nil, s.failed("create a copy beside", err)
	}
	if err := unix.Fstat(k.fd, &k.stat); err != nil {
		s.discard(p, k.name)
		k.close()
		return nil, s.failed("stat a copy of", err)
	}
	return k, nil
}

// errNoLink: a file without a name cannot be given one here (no /proc, or a policy).
var errNoLink = errors.New("a copy without a name cannot be given one")

// rewriteCopy makes a copy that is beside the file hold next. Its lease stays.
func (s *File) rewriteCopy(p place, k *fileCopy, old *openFile, content, next []byte) error {
	if err := s.nameCopy(p, k, copyPrefix(p.name)+unfinished); err != nil {
		return err
	}
	return s.fillCopy(p, k, old, content, next)
}

// fillCopy gives the draft k its content, its rights, and its telling name only when it is whole and on disk: a file of
// such a name is never torn.
func (s *File) fillCopy(p place, k *fileCopy, old *openFile, content, next []byte) error {
	if err := k.rewrite(next); err != nil {
		return s.failed("write a copy of", err)
	}
	if err := takeRights(k.fd, old); err != nil {
		return s.failed("give its rights to a copy of", err)
	}
	if err := retryEINTR(func() error { return unix.Fsync(k.fd) }); err != nil {
		return s.failed("sync a copy of", err)
	}
	return s.nameCopy(p, k, copyName(p.name, content, next))
}

// nameCopy gives k a name: want, or, where that is taken, one that nobody can foretell and that begins with it.
func (s *File) nameCopy(p place, k *fileCopy, want string) error {
	first := k.name == ""
	err := k.rename(p, want)
	if errors.Is(err, unix.EEXIST) {
		if !s.late[want] {
			s.unsettled = true
			s.leaveAlone(want, "it has the name that a copy was to get; the copy got another one")
		}
		err = k.rename(p, want+"-"+rand.Text()[:8])
	}
	switch {
	case err == nil:
		return nil
	case first && (isForbidden(err) || errors.Is(err, unix.ENOENT)):
		return fmt.Errorf("%w: %w", errNoLink, err)
	}
	return s.failed("name a copy of", err)
}

// rename gives the copy another name, or its first.
func (k *fileCopy) rename(p place, name string) error {
	var err error
	if k.name == "" {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", k.fd), p.dir, name, unix.AT_SYMLINK_FOLLOW)
	} else {
		err = unix.Renameat2(p.dir, k.name, p.dir, name, unix.RENAME_NOREPLACE)
		if isForbidden(err) && !p.has(name) {
			err = unix.Renameat(p.dir, k.name, p.dir, name)
		}
	}
	if err == nil {
		k.name = name
	}
	return err
}

// rewrite makes content what the copy holds.
func (k *fileCopy) rewrite(content []byte) error {
	if err := writeAll(k.fd, content); err != nil || int64(len(content)) >= k.size {
		k.size = max(k.size, int64(len(content)))
		return err
	}
	k.size = int64(len(content))
	return unix.Ftruncate(k.fd, k.size)
}

// discard takes away the name of a copy that is not needed, if it has one. Should that fail, it is a stray, which the next
// replacement deals with, or the next start.
func (s *File) discard(p place, name string) {
	if name != "" && s.remove(p, name) != nil {
		s.unsettled = true
	}
}

// createDraft creates a draft under a name that is free.
func (p place) createDraft() (name string, fd int, err error) {
	name = copyPrefix(p.name) + unfinished
	for range 2 {
		err = retryEINTR(func() (err error) {
			fd, err = unix.Openat(p.dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
			return err
		})
		if !errors.Is(err, unix.EEXIST) {
			return name, fd, err
		}
		name = copyPrefix(p.name) + unfinished + "-" + rand.Text()[:8]
	}
	return name, fd, err
}
