package sinks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errUnsafe is for a directory that everybody may write. A sticky bit does not mend it: it keeps strangers from removing
// what is there, and not from planting links and stray copies.
var errUnsafe = errors.New("everybody may write the directory of the instance's configuration file")

// checkDirectory refuses a directory in which strangers may plant something.
func (c *configFile) checkDirectory(p *place) error {
	var stat unix.Stat_t
	if err := unix.Fstat(p.dir, &stat); err != nil {
		return c.wrap("stat directory of", err)
	}
	p.owner, p.mode = stat.Uid, stat.Mode
	if stat.Mode&unix.S_IWOTH == 0 {
		return nil
	}
	dir := filepath.Dir(c.path)
	return fmt.Errorf("%w: %s has mode %04o: chmod o-w %s", errUnsafe, dir, stat.Mode&0o7777, dir)
}

// reportRights tells, once, of a file that everybody may write, and of a directory that its group may write or whose owner has
// nothing to do with the file. These are not refused: Campaign's own installation may let the group write, and in a container
// the owner of a mounted directory may be anybody, "nobody" included.
func (c *configFile) reportRights(p place, f *openFile) {
	var message, path string
	switch {
	case f.stat.Mode&unix.S_IWOTH != 0:
		message, path = "everybody may write this, and so replace the credential: chmod o-w it", c.path
	case p.owner != 0 && p.owner != uint32(os.Geteuid()) && p.owner != f.stat.Uid:
		message, path = "this directory belongs to somebody else, who may replace everything in it: give it to the owner of the file",
			filepath.Dir(c.path)
	case p.mode&unix.S_IWGRP != 0:
		message, path = "the group of this directory may replace everything in it, the credential included: chmod g-w it", filepath.Dir(c.path)
	}
	if message != c.reported && message != "" {
		c.log.Warn(message, "path", path)
	}
	c.reported = message
}
