package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// directories are those whose files are printed before each call that may change them.
type directories struct {
	names []string
	// synced are the files that the process has synced, by identity. One on which it holds a lease must not be opened.
	synced map[string]file
}

func (d *directories) String() string { return strings.Join(d.names, ",") }

func (d *directories) Set(dir string) error {
	d.names = append(d.names, dir)
	return nil
}

// sync notes what a file holds that the process is about to sync, and returns its identity.
func (d *directories) sync(pid, tid, fd int) string {
	id, mtime := identity(fmt.Sprintf("/proc/%d/fd/%d", tid, fd))
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil || len(d.names) == 0 {
		return id
	}
	defer unix.Close(process)
	same, err := unix.PidfdGetfd(process, fd, 0) // to open it anew would break a lease
	if err != nil {
		return id
	}
	defer unix.Close(same)
	var stat unix.Stat_t
	if unix.Fstat(same, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return id
	}
	data := make([]byte, stat.Size)
	if n, err := unix.Pread(same, data, 0); err == nil && n == len(data) {
		if d.synced == nil {
			d.synced = map[string]file{}
		}
		d.synced[id] = file{id, mtime, data}
	}
	return id
}

// file is what a name shows at some moment.
type file struct {
	ID    string `json:"id"`    // of the inode
	MTime int64  `json:"mtime"` // in nanoseconds
	Data  []byte `json:"data"`
}

// changing are the calls that change files, or have changes kept.
var changing = map[string]bool{
	"write": true, "pwrite64": true, "ftruncate": true, "fallocate": true, "fsync": true, "fdatasync": true, "renameat": true,
	"renameat2": true, "linkat": true, "unlinkat": true, "openat": true,
}

// before returns all files when a call begins; nil if it is not about them.
func (d *directories) before(name, on string) map[string]map[string]file {
	ours := !filepath.IsAbs(on) // beside a directory that the process holds open
	for _, dir := range d.names {
		ours = ours || on == dir || strings.HasPrefix(on, dir+"/")
	}
	if !ours || !changing[name] {
		return nil
	}
	return d.files()
}

// files returns what the directories hold, by directory and name.
func (d *directories) files() map[string]map[string]file {
	all := map[string]map[string]file{}
	for _, dir := range d.names {
		all[dir] = map[string]file{}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			id, mtime := identity(path)
			if known, ok := d.synced[id]; ok && known.MTime == mtime {
				all[dir][e.Name()] = known
				continue
			}
			if data, err := os.ReadFile(path); err == nil && id != "" {
				all[dir][e.Name()] = file{id, mtime, data}
			}
		}
	}
	return all
}

// identity tells a file from every other one, also from one that had its inode's number before.
func identity(path string) (id string, mtime int64) {
	var s unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &s) != nil {
		return "", 0
	}
	return fmt.Sprintf("%d-%d.%d", s.Ino, s.Btime.Sec, s.Btime.Nsec), s.Mtime.Sec*1e9 + int64(s.Mtime.Nsec)
}
