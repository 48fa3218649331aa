// Package durable writes the daemon's own small files so that a crash at any instant leaves the old or the new whole file. It is for
// files that nobody else writes; the instance's configuration file needs more (package sinks).
package durable

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const partialSuffix = ".partial"

// WriteFile replaces the file at path by data, readable for its owner only. When it returns nil, data is on disk. Written
// by root, the file belongs to the directory's owner, so that a command that root types leaves nothing behind that the
// daemon cannot read. Not for concurrent use on the same path.
func WriteFile(path string, data []byte) error {
	partial := path + partialSuffix
	// A new one in any case: what is there may be a link to somebody else's file, or have other rights. No directory is removed.
	if err := syscall.Unlink(partial); err != nil && err != syscall.ENOENT {
		return &os.PathError{Op: "unlink", Path: partial, Err: err}
	}
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = giveToOwner(f, filepath.Dir(path)); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		os.Remove(partial)
		return err
	}
	return syncDir(filepath.Dir(path))
}

func giveToOwner(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t) // always that on Linux
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// syncDir makes changes of the directory's entries durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// RemovePartials removes what interrupted WriteFiles left in dir.
func RemovePartials(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), partialSuffix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
