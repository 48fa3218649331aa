package filewatch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// watchPoint is a name in a directory, at which a change of a file may show. The directory is named without links.
type watchPoint struct {
	dir, name string
	id        fileID // of the directory; zero where it cannot be told
}

// fileID tells a file or directory from another that was put at its path.
type fileID struct{ device, inode uint64 }

// maxLinks is the kernel's own bound.
const maxLinks = 40

// watchPointsOf walks to a file as the kernel does and returns where its content may be exchanged: each symbolic link on the way, be
// it Kubernetes' ..data or one to another directory, and the file itself. Where the way ends early, the last point is where it
// would go on.
func watchPointsOf(file string) []watchPoint {
	var points []watchPoint
	dir, todo, links := "/", parts(file), 0
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		target, err := os.Readlink(filepath.Join(dir, name))
		switch {
		case err == nil:
			points = append(points, pointAt(dir, name))
			if links++; links > maxLinks {
				return points
			}
			if filepath.IsAbs(target) {
				dir = "/"
			}
			todo = append(parts(target), todo...)
		case len(todo) == 0 || !errors.Is(err, syscall.EINVAL): // EINVAL: it is there and no link
			return append(points, pointAt(dir, name))
		default:
			dir = filepath.Join(dir, name)
		}
	}
	return points
}

func pointAt(dir, name string) watchPoint { return watchPoint{dir, name, signatureOf(dir).fileID} }

// parts splits a path. It keeps "..", which behind a link is not what filepath.Clean takes it for.
func parts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(part string) bool { return part == "" || part == "." })
}

// signature is what stat tells about a file; zero where there is none. Two equal ones may hide a change within a tick of the
// file system's clock (milliseconds).
type signature struct {
	fileID
	size              int64
	modified, changed syscall.Timespec
}

func signatureOf(path string) signature {
	info, err := os.Stat(path)
	if err != nil {
		return signature{}
	}
	stat := info.Sys().(*syscall.Stat_t) // always that on Linux
	return signature{fileID{stat.Dev, stat.Ino}, stat.Size, stat.Mtim, stat.Ctim}
}
