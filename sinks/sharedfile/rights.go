package sharedfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

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
