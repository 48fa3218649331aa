// Package regularfile opens files that other people put there: the configuration, a secret-id, a token, a certificate.
package regularfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open opens a regular file for reading and returns what fstat tells of it. It never waits, as opening a FIFO or a terminal
// would. Its error is an *[fs.PathError] that says what to do.
func Open(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0) // os adds O_CLOEXEC
	if err != nil {
		return nil, nil, withRemedy(path, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotRegular
	}
	if err != nil {
		f.Close()
		return nil, nil, withRemedy(path, err)
	}
	return f, info, nil
}

// ErrNotRegular is what Open says of a directory, a FIFO, a socket or a device.
var ErrNotRegular = errors.New("is not a regular file; put one there")

// Read reads a regular file of at most limit bytes. Its errors are those of Open.
func Read(path string, limit int64) ([]byte, error) {
	f, _, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, limit)
}

// ReadAll reads a file that Open has opened. It is Read for whoever opens several files before reading one.
func ReadAll(f *os.File, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("is larger than %d bytes; put the right file there", limit)
	}
	if err != nil {
		return nil, withRemedy(f.Name(), err)
	}
	return data, nil
}

// withRemedy names the path, and what to do about the commonest errors.
func withRemedy(path string, err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathError.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w; put the file there, readable for this user", err)
	case errors.Is(err, unix.ENXIO): // a socket
		err = ErrNotRegular
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: %s; make it readable for that user", err, whoMayNot(path))
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}

// whoMayNot tells who may not read a file, and whose it is.
func whoMayNot(path string) string {
	me := "user " + userName(os.Geteuid())
	info, err := os.Stat(path)
	if err != nil {
		return me + " may not enter a directory above it"
	}
	file := info.Sys().(*syscall.Stat_t) // always that on Linux
	group := strconv.Itoa(int(file.Gid))
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("%s may not read it (mode %04o, owner %s, group %s)", me, info.Mode().Perm(), userName(int(file.Uid)), group)
}

// userName is the name of a user, or its number where it has none.
func userName(uid int) string {
	number := strconv.Itoa(uid)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}
