package sharedfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// place is the file's directory, held open, and its name there. The name has no slash, and everything is done by it and
// the descriptor, without following links: so nothing is ever opened, changed or removed outside of that directory,
// whatever is put in its place meanwhile.
type place struct {
	dir  int
	name string
	stat unix.Stat_t // of the directory
}

func (p place) close() { unix.Close(p.dir) }

// errUnsafe is for a directory that everybody may write. A sticky bit does not mend it: it keeps strangers from removing
// what is there, and not from planting links and stray copies.
var errUnsafe = errors.New("everybody may write the directory of the instance's configuration file")

// locate opens the directory. A symbolic link is followed as long as it stays in the directory; one that leads out of it is
// refused, and so is a directory that everybody may write.
func (s *File) locate() (p place, err error) {
	dir := filepath.Dir(s.path)
	p.name = filepath.Base(s.path)
	err = retryEINTR(func() (err error) {
		p.dir, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return place{}, s.wrap("open directory of", err)
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err := unix.Fstat(p.dir, &p.stat); err != nil {
		return p, s.wrap("stat directory of", err)
	}
	if p.stat.Mode&unix.S_IWOTH != 0 {
		return p, fmt.Errorf("%w: %s has mode %04o: chmod o-w %s", errUnsafe, dir, p.stat.Mode&0o7777, dir)
	}
	target := make([]byte, unix.PathMax)
	for range 8 {
		n, err := unix.Readlinkat(p.dir, p.name, target)
		if errors.Is(err, unix.EINVAL) {
			return p, nil // no link
		}
		if err != nil {
			return p, s.wrap("find", err)
		}
		p.name = string(target[:n])
		if filepath.IsAbs(p.name) && filepath.Dir(p.name) == dir {
			p.name = filepath.Base(p.name)
		}
		if strings.ContainsRune(p.name, '/') || p.name == ".." || p.name == "." {
			break
		}
	}
	return p, fmt.Errorf("%s is a symbolic link that leads out of its directory: name the file itself in config_file", s.path)
}

// reportRights tells, once, of a file that everybody may write, and of a directory that its group may write or whose owner has
// nothing to do with the file. These are not refused: Campaign's own installation may let the group write, and in a container
// the owner of a mounted directory may be anybody, "nobody" included.
func (s *File) reportRights(p place, f *openFile) {
	var message string
	path := filepath.Dir(s.path)
	switch {
	case f.stat.Mode&unix.S_IWOTH != 0:
		message, path = "everybody may write this, and so replace the credential: chmod o-w it", s.path
	case p.stat.Uid != 0 && p.stat.Uid != uint32(os.Geteuid()) && p.stat.Uid != f.stat.Uid:
		message = "this directory belongs to somebody else, who may replace everything in it: give it to the owner of the file"
	case p.stat.Mode&unix.S_IWGRP != 0:
		message = "the group of this directory may replace everything in it, the credential included: chmod g-w it"
	}
	if message != s.rights && message != "" {
		s.log.Warn(message, "path", path)
	}
	s.rights = message
}

// shows reports whether name is that very inode, which must be held open, or its number may have been used again.
func (p place) shows(name string, inode unix.Stat_t) bool {
	stat, err := p.lookAt(name)
	return err == nil && stat.Dev == inode.Dev && stat.Ino == inode.Ino
}

func (p place) lookAt(name string) (stat unix.Stat_t, err error) {
	err = unix.Fstatat(p.dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	return stat, err
}

// has reports whether there is anything of that name.
func (p place) has(name string) bool {
	_, err := p.lookAt(name)
	return !errors.Is(err, unix.ENOENT)
}

// swap exchanges the names of the copy and the file.
func (p place) swap(copyName string) error {
	return retryEINTR(func() error {
		return unix.Renameat2(p.dir, copyName, p.dir, p.name, unix.RENAME_EXCHANGE)
	})
}

// appendOnly reports whether nothing can be removed from the directory, also where the rights allow it.
func (p place) appendOnly() bool {
	var x unix.Statx_t
	return unix.Statx(p.dir, "", unix.AT_EMPTY_PATH, 0, &x) == nil && x.Attributes&unix.STATX_ATTR_APPEND != 0
}

// strays lists the names of copies.
func (p place) strays() ([]string, error) {
	fd, err := unix.Openat(p.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), "conf")
	defer dir.Close()
	all, err := dir.Readdirnames(-1)
	var names []string
	for _, name := range all {
		if strings.HasPrefix(name, copyPrefix(p.name)) {
			names = append(names, name)
		}
	}
	return names, err
}
