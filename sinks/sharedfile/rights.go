package sharedfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// takeRights gives f the owner, group, mode and extended attributes (so ACLs, too) of old.
func (f *openFile) takeRights(old *openFile) error {
	to, uid, gid := int(f.Fd()), old.stat.Uid, old.stat.Gid
	if f.stat.Uid != uid || f.stat.Gid != gid { // a policy may forbid to change nothing, too
		if err := f.Chown(int(uid), int(gid)); err != nil {
			return fmt.Errorf("keep owner %d:%d: %w", uid, gid, err)
		}
		f.stat.Uid, f.stat.Gid = uid, gid
	}
	if err := unix.Fchmod(to, old.stat.Mode&0o7777); err != nil {
		return fmt.Errorf("keep mode %o: %w", old.stat.Mode&0o7777, err)
	}
	wanted, err := xattrs(int(old.Fd()))
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
	buffer := make([]byte, 64<<10) // the kernel's limit, for the list and for each value
	n, err := unix.Flistxattr(fd, buffer)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	all := map[string][]byte{}
	for name := range strings.SplitSeq(string(buffer[:n]), "\x00") {
		if name == "" { // after the last
			continue
		}
		size, err := unix.Fgetxattr(fd, name, buffer)
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		all[name] = bytes.Clone(buffer[:size])
	}
	return all, nil
}
