package sharedfile

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// place is the file's directory, held open, and its name there. The name has no slash, and everything is done by it and
// the descriptor, without following links: so nothing is ever opened, changed or removed outside of that directory,
// whatever is put in its place meanwhile.
type place struct {
	*File
	dir  *os.File
	stat unix.Stat_t // of the directory
	name string
}

// locate opens the directory. A symbolic link is followed as long as it stays in the directory; one that leads out of it is
// refused, and so is a directory that everybody may write. A sticky bit does not mend that: it keeps strangers from removing
// what is there, and not from planting links and stray copies.
func (s *File) locate() (p place, err error) {
	parent := filepath.Dir(s.path)
	dir, err := os.OpenFile(parent, unix.O_DIRECTORY, 0)
	if err != nil {
		return place{}, s.wrap("open directory of", err)
	}
	defer func() {
		if err != nil {
			dir.Close()
		}
	}()
	p = place{File: s, dir: dir}
	if err := unix.Fstat(int(dir.Fd()), &p.stat); err != nil {
		return p, s.wrap("stat directory of", err)
	}
	if p.stat.Mode&unix.S_IWOTH != 0 {
		return p, fmt.Errorf("everybody may write the directory of the instance's configuration file: %s has mode %04o: chmod o-w %s",
			parent, p.stat.Mode&0o7777, parent)
	}
	p.name = filepath.Base(s.path)
	if stat, err := p.lookAt(p.name); err != nil {
		return p, s.wrap("find", err)
	} else if stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return p, nil
	}
	target, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return p, s.wrap("find", err)
	}
	p.name = filepath.Base(target)
	if parent, err := filepath.EvalSymlinks(parent); err != nil || filepath.Dir(target) != parent {
		return p, fmt.Errorf("%s is a symbolic link that leads out of its directory: name the file itself in config_file", s.path)
	}
	return p, nil
}

// warnOfRights tells, once, of a file that everybody may write, and of a directory that its group may write or whose owner has
// nothing to do with the file. These are not refused: Campaign's own installation may let the group write, and in a container
// the owner of a mounted directory may be anybody, "nobody" included.
func (p place) warnOfRights(f *openFile) {
	parent := filepath.Dir(p.path)
	switch {
	case f.stat.Mode&unix.S_IWOTH != 0:
		p.logOnce(slog.LevelWarn, "everybody may write this, and so replace the credential: chmod o-w it", p.path)
	case p.stat.Uid != 0 && p.stat.Uid != uint32(os.Geteuid()) && p.stat.Uid != f.stat.Uid:
		p.logOnce(slog.LevelWarn, "this directory belongs to somebody else, who may replace everything in it: give it to the owner of the file", parent)
	case p.stat.Mode&unix.S_IWGRP != 0:
		p.logOnce(slog.LevelWarn, "the group of this directory may replace everything in it, the credential included: chmod g-w it", parent)
	}
}

// openAt opens a file of the directory, without following a link and without waiting.
func (p place) openAt(name string, flags int) (*openFile, error) {
	var fd int
	err := retryEINTR(func() (err error) {
		fd, err = unix.Openat(int(p.dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	unix.SetNonblock(fd, false) // else os.File does that at every use of the descriptor
	f := &openFile{File: os.NewFile(uintptr(fd), p.beside(name)), name: name, leased: unix.F_UNLCK}
	if err := unix.Fstat(fd, &f.stat); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// beside is the path of a file in the directory, for people.
func (p place) beside(name string) string { return filepath.Join(filepath.Dir(p.path), name) }

// shows reports whether name is that very inode, which must be held open, or its number may have been used again.
func (p place) shows(name string, inode unix.Stat_t) bool {
	stat, err := p.lookAt(name)
	return err == nil && sameInode(stat, inode)
}

func (p place) lookAt(name string) (stat unix.Stat_t, err error) {
	err = unix.Fstatat(int(p.dir.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	return stat, err
}

func sameInode(a, b unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

// swap exchanges the names of a copy and the file.
func (p place) swap(copyName string) error {
	dir := int(p.dir.Fd())
	return retryEINTR(func() error { return unix.Renameat2(dir, copyName, dir, p.name, unix.RENAME_EXCHANGE) })
}

// rename gives f another name, and replaces what has it; or its first one, which nothing must have.
func (p place) rename(f *openFile, name string) error {
	dir := int(p.dir.Fd())
	err := retryEINTR(func() error {
		if f.name == "" {
			return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), dir, name, unix.AT_SYMLINK_FOLLOW)
		}
		return unix.Renameat(dir, f.name, dir, name)
	})
	if err == nil {
		f.name = name
	}
	return err
}

func (p place) remove(name string) error {
	err := retryEINTR(func() error { return unix.Unlinkat(int(p.dir.Fd()), name, 0) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove it: %w", err)
	}
	return nil
}

// sync has the names in the directory on disk, where the file system can do that.
func (p place) sync() error {
	if err := p.dir.Sync(); err != nil && !isForbidden(err) {
		return fmt.Errorf("sync the directory of %s: %w", p.path, err)
	}
	return nil
}

// appendOnly reports whether nothing can be removed from the directory, also where the rights allow it.
func (p place) appendOnly() bool {
	var x unix.Statx_t
	return unix.Statx(int(p.dir.Fd()), "", unix.AT_EMPTY_PATH, 0, &x) == nil && x.Attributes&unix.STATX_ATTR_APPEND != 0
}
