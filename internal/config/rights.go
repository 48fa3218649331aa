package config

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkRights refuses a file that everybody may write: the daemon runs what it says, and logs in with what it names. It returns what
// else lets others write it, which may be meant.
func checkRights(file string) (warnings []string, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, nil // it was read, and was replaced just now: the next reload looks again
	}
	mode, owner := info.Mode().Perm(), info.Sys().(*syscall.Stat_t) // always that on Linux
	if mode&0o002 != 0 {
		return nil, Error(fmt.Sprintf("%s:1:1: everybody may write this file (mode %04o), and so have the daemon run anything: chmod o-w it", file, mode))
	}
	if mode&0o020 != 0 && owner.Gid != 0 {
		warnings = append(warnings, fmt.Sprintf("%s:1:1: its group may write this file (mode %04o), and so have the daemon run anything: chmod g-w it", file, mode))
	}
	if me := uint32(os.Geteuid()); owner.Uid != 0 && me != 0 && owner.Uid != me {
		warnings = append(warnings, fmt.Sprintf("%s:1:1: this file belongs to user %d, who may have the daemon run anything: chown it to root", file, owner.Uid))
	}
	if dir := filepath.Dir(file); othersMayReplace(dir) {
		warnings = append(warnings, fmt.Sprintf("%s:1:1: others may replace this file, as they may write its directory: chmod go-w %s", file, dir))
	}
	return warnings, nil
}

// othersMayReplace reports whether somebody but root, the owner and the group root may rename files of a directory. What is mounted
// read-only is safe whatever its mode; a ConfigMap of Kubernetes has 0777.
func othersMayReplace(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil || info.Mode()&os.ModeSticky != 0 {
		return false
	}
	var mount unix.Statfs_t
	if err := unix.Statfs(dir, &mount); err == nil && mount.Flags&unix.ST_RDONLY != 0 {
		return false
	}
	mode := info.Mode().Perm()
	return mode&0o002 != 0 || mode&0o020 != 0 && info.Sys().(*syscall.Stat_t).Gid != 0
}
