package sinks

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

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
func (c *configFile) newCopy(p place, old *openFile, content, next []byte) (*fileCopy, error) {
	k, err := c.createCopy(p, old.stat.Mode&0o777)
	if err != nil {
		return nil, err
	}
	if err := c.fillCopy(p, k, old, content, next); err != nil {
		c.discard(p, k.name)
		k.close()
		if errors.Is(err, errNoLink) && !c.noLink {
			c.noLink = true
			return c.newCopy(p, old, content, next)
		}
		return nil, err
	}
	k.lease(unix.F_WRLCK) // there is none where leases are not supported; openQuiet has said so
	return k, nil
}

// createCopy makes an empty copy: without a name where the file system can do that, and one can be given later (noLink), so that
// nobody who watches the directory is woken by what happens to it (we do watch it), else as a draft.
func (c *configFile) createCopy(p place, mode uint32) (*fileCopy, error) {
	k, err := &fileCopy{openFile: &openFile{}}, errNoLink
	if !c.noLink {
		err = retryEINTR(func() (err error) {
			k.fd, err = unix.Openat(p.dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, mode)
			return err
		})
	}
	if err != nil {
		k.name, k.fd, err = p.createDraft()
	}
	if err != nil {
		return nil, c.failed("create a copy beside", err)
	}
	if err := unix.Fstat(k.fd, &k.stat); err != nil {
		c.discard(p, k.name)
		k.close()
		return nil, c.failed("stat a copy of", err)
	}
	return k, nil
}

// errNoLink: a file without a name cannot be given one here (no /proc, or a policy).
var errNoLink = errors.New("a copy without a name cannot be given one")

// rewriteCopy makes a copy that is beside the file hold next. Its lease stays.
func (c *configFile) rewriteCopy(p place, k *fileCopy, old *openFile, content, next []byte) error {
	if err := c.nameCopy(p, k, copyPrefix(p.name)+unfinished); err != nil {
		return err
	}
	return c.fillCopy(p, k, old, content, next)
}

// fillCopy gives the draft k its content, its rights, and its telling name only when it is whole and on disk: a file of
// such a name is never torn.
func (c *configFile) fillCopy(p place, k *fileCopy, old *openFile, content, next []byte) error {
	if err := k.rewrite(next); err != nil {
		return c.failed("write a copy of", err)
	}
	if err := takeRights(k.fd, old); err != nil {
		return c.failed("give its rights to a copy of", err)
	}
	if err := retryEINTR(func() error { return unix.Fsync(k.fd) }); err != nil {
		return c.failed("sync a copy of", err)
	}
	return c.nameCopy(p, k, copyName(p.name, content, next))
}

// nameCopy gives k a name: want, or, where that is taken, one that nobody can foretell and that begins with it.
func (c *configFile) nameCopy(p place, k *fileCopy, want string) error {
	first := k.name == ""
	err := k.rename(p, want)
	if errors.Is(err, unix.EEXIST) {
		if !c.late[want] {
			c.unsettled = true
			c.leaveAlone(want, "it has the name that a copy was to get; the copy got another one")
		}
		err = k.rename(p, want+"-"+rand.Text()[:8])
	}
	switch {
	case err == nil:
		return nil
	case first && (isForbidden(err) || errors.Is(err, unix.ENOENT)):
		return fmt.Errorf("%w: %w", errNoLink, err)
	}
	return c.failed("name a copy of", err)
}

// rename gives the copy another name, or its first.
func (k *fileCopy) rename(p place, name string) error {
	var err error
	if k.name == "" {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", k.fd), p.dir, name, unix.AT_SYMLINK_FOLLOW)
	} else {
		err = unix.Renameat2(p.dir, k.name, p.dir, name, unix.RENAME_NOREPLACE)
		if isForbidden(err) && p.isFree(name) {
			err = unix.Renameat(p.dir, k.name, p.dir, name)
		}
	}
	if err == nil {
		k.name = name
	}
	return err
}

// isFree reports whether there is nothing of that name.
func (p place) isFree(name string) bool {
	var stat unix.Stat_t
	return errors.Is(unix.Fstatat(p.dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT)
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
func (c *configFile) discard(p place, name string) {
	if name == "" {
		return
	}
	if err := retryEINTR(func() error { return unix.Unlinkat(p.dir, name, 0) }); err != nil && !errors.Is(err, unix.ENOENT) {
		c.unsettled = true
	}
}

// keepRights carries over a chmod or chown that came between the copy and the exchange.
func (k *fileCopy) keepRights(old *openFile) {
	before := old.stat
	if unix.Fstat(old.fd, &old.stat) != nil {
		return
	}
	now := old.stat
	if now.Uid != before.Uid || now.Gid != before.Gid {
		unix.Fchown(k.fd, int(now.Uid), int(now.Gid))
	}
	if now.Mode != before.Mode {
		unix.Fchmod(k.fd, now.Mode&0o7777)
	}
}

// takeRights gives fd the owner, group, mode and extended attributes (so ACLs, too) of old.
func takeRights(fd int, old *openFile) error {
	var own unix.Stat_t
	if err := unix.Fstat(fd, &own); err != nil {
		return err
	}
	if own.Uid != old.stat.Uid || own.Gid != old.stat.Gid {
		if err := unix.Fchown(fd, int(old.stat.Uid), int(old.stat.Gid)); err != nil {
			return fmt.Errorf("keep owner %d:%d: %w", old.stat.Uid, old.stat.Gid, err)
		}
	}
	if own.Uid != old.stat.Uid || own.Gid != old.stat.Gid || own.Mode != old.stat.Mode {
		if err := unix.Fchmod(fd, old.stat.Mode&0o7777); err != nil {
			return fmt.Errorf("keep mode %o: %w", old.stat.Mode&0o7777, err)
		}
	}
	return takeXattrs(fd, old.fd)
}

func takeXattrs(to, from int) error {
	wanted, err := xattrs(from)
	if err != nil {
		return err
	}
	present, err := xattrs(to)
	if err != nil {
		return err
	}
	for name, value := range wanted {
		if had, ok := present[name]; ok && bytes.Equal(had, value) {
			continue
		}
		if err := unix.Fsetxattr(to, name, value, 0); err != nil {
			return fmt.Errorf("keep extended attribute %s: %w", name, err)
		}
	}
	for name := range present { // inherited from the directory
		if _, ok := wanted[name]; !ok {
			if err := unix.Fremovexattr(to, name); err != nil {
				return fmt.Errorf("drop inherited extended attribute %s: %w", name, err)
			}
		}
	}
	return nil
}

func xattrs(fd int) (map[string][]byte, error) {
	n, err := unix.Flistxattr(fd, nil)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil, nil // as nearly always
	}
	const limit = 64 << 10 // the kernel's, for the list and for each value
	buffer := make([]byte, limit)
	if err == nil {
		n, err = unix.Flistxattr(fd, buffer)
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	if n == 0 { // an overlay counts attributes of its own, and does not list them
		return nil, nil
	}
	all := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buffer[:n]), "\x00"), "\x00") {
		value := make([]byte, limit)
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		all[name] = value[:n]
	}
	return all, nil
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
