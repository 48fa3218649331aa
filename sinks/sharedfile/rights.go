package sharedfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Rights are the owner, group, mode and extended attributes (so ACLs, too) of a file, and which inode it was.
type Rights struct {
	Inode    uint64            `json:"inode"`
	UID      uint32            `json:"uid"`
	GID      uint32            `json:"gid"`
	Mode     uint32            `json:"mode"`
	Extended map[string][]byte `json:"extended"`
}

// Rights tells those of the file as it is now.
func (s *File) Rights() (r Rights, err error) {
	p, err := s.locate()
	if err != nil {
		return r, err
	}
	defer p.dir.Close()
	f, err := p.open(p.name)
	if err != nil {
		return r, s.wrap("open", err)
	}
	defer f.Close()
	return f.rights()
}

// RestoreRights gives the file the rights that it had, if it was replaced since.
func (s *File) RestoreRights(r Rights) error {
	p, err := s.locate()
	if err != nil {
		return err
	}
	defer p.dir.Close()
	f, err := p.open(p.name)
	if err != nil {
		return s.wrap("open", err)
	}
	defer f.Close()
	if f.stat.Ino == r.Inode {
		return nil
	}
	if err := f.takeRights(r); err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return nil
}

func (f *openFile) rights() (r Rights, err error) {
	extended, err := xattrs(int(f.Fd()))
	return Rights{f.stat.Ino, f.stat.Uid, f.stat.Gid, f.stat.Mode & 0o7777, extended}, err
}

// takeRights gives f the rights r.
func (f *openFile) takeRights(r Rights) error {
	to := int(f.Fd())
	if f.stat.Uid != r.UID || f.stat.Gid != r.GID { // a policy may forbid to change nothing, too
		if err := f.Chown(int(r.UID), int(r.GID)); err != nil {
			return fmt.Errorf("keep owner %d:%d: %w", r.UID, r.GID, err)
		}
		f.stat.Uid, f.stat.Gid = r.UID, r.GID
	}
	if err := unix.Fchmod(to, r.Mode); err != nil {
		return fmt.Errorf("keep mode %o: %w", r.Mode, err)
	}
	present, err := xattrs(to)
	if err != nil {
		return err
	}
	for name, value := range r.Extended {
		if had, ok := present[name]; ok && bytes.Equal(had, value) {
			continue
		}
		if err := unix.Fsetxattr(to, name, value, 0); err != nil {
			return fmt.Errorf("keep extended attribute %s: %w", name, err)
		}
	}
	for name := range present { // inherited from the directory
		if _, ok := r.Extended[name]; !ok {
			if err := unix.Fremovexattr(to, name); err != nil {
				return fmt.Errorf("drop inherited extended attribute %s: %w", name, err)
			}
		}
	}
	return nil
}

func xattrs(fd int) (map[string][]byte, error) {
	if n, err := unix.Flistxattr(fd, nil); errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	return readXattrs(fd) // apart, as its buffer makes the stack grow
}

func readXattrs(fd int) (map[string][]byte, error) {
	buffer := make([]byte, 64<<10) // the kernel's limit, for the list and for each value
	n, err := unix.Flistxattr(fd, buffer)
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
