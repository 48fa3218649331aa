package sinks

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// maxLinks is how many symbolic links in a row Linux follows.
const maxLinks = 40

// watchedFile is a file to be watched. Where it is a symbolic link, its target is watched too, and each link between.
type watchedFile struct {
	path  string
	call  func(missed bool)
	chain []string  // path, then what it leads to, link by link
	seen  signature // for polling
}

// watchedDir is a directory that holds a link of some file's chain.
type watchedDir struct {
	path    string
	names   map[string][]*watchedFile // by base name
	watched bool                      // there is a watch on the directory that id names
	id      dirID
	polled  bool          // its files are looked at every so often
	warned  bool          // about being polled
	addAt   time.Time     // when to try to add it; zero while watched
	wait    time.Duration // the last back-off
}

// dirID tells a directory from another that was put at its path.
type dirID struct{ device, inode uint64 }

func (d *watchedDir) callAll() {
	for _, files := range d.names {
		for _, file := range files {
			file.call(true)
		}
	}
}

// follow brings a file's chain of links up to date, and reports whether it changed.
func (w *fileWatch) follow(file *watchedFile) bool {
	chain := []string{file.path}
	for path := file.path; len(chain) <= maxLinks; {
		target, err := os.Readlink(path)
		if err != nil {
			break // no link, or nothing there
		}
		if !filepath.IsAbs(target) {
			dir := filepath.Dir(path)
			// A ".." in the target starts from where the directory really is.
			if real, err := filepath.EvalSymlinks(dir); err == nil {
				dir = real
			}
			target = filepath.Join(dir, target)
		}
		if path = filepath.Clean(target); slices.Contains(chain, path) {
			break
		}
		chain = append(chain, path)
	}
	if slices.Equal(chain, file.chain) {
		return false
	}
	file.chain = chain
	w.arrange()
	return true
}

// arrange makes the set of directories that of the files' chains.
func (w *fileWatch) arrange() {
	wanted := map[string]map[string][]*watchedFile{}
	for _, file := range w.files {
		for _, path := range file.chain {
			dir, base := filepath.Split(path)
			dir = filepath.Clean(dir)
			if wanted[dir] == nil {
				wanted[dir] = map[string][]*watchedFile{}
			}
			wanted[dir][base] = append(wanted[dir][base], file)
		}
	}
	for path, dir := range w.dirs {
		if wanted[path] == nil {
			w.lose(dir)
			delete(w.dirs, path)
		}
	}
	for path, names := range wanted {
		if dir := w.dirs[path]; dir != nil {
			dir.names = names
			continue
		}
		dir := &watchedDir{path: path, names: names, polled: w.events == nil}
		w.dirs[path] = dir
		if w.events != nil {
			w.add(dir)
		}
	}
}

// add watches a directory, or says when to try again.
func (w *fileWatch) add(dir *watchedDir) {
	dir.polled = w.pollsNetwork(dir)
	// Taken before the watch is made: if the directory is replaced between the two, the next tick sees another one.
	id, err := identify(dir.path)
	if err == nil {
		err = w.events.Add(dir.path)
	}
	switch {
	case err == nil:
		dir.watched, dir.id, dir.addAt, dir.wait = true, id, time.Time{}, 0
		dir.callAll() // whatever happened before the watch was there
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		if dir.wait == 0 {
			w.logger.Debug("a directory to be watched is missing", "directory", dir.path, "reason", err)
		}
		dir.wait = min(max(2*dir.wait, w.pace.first), w.pace.max)
		dir.addAt = time.Now().Add(dir.wait/2 + rand.N(dir.wait/2+1))
	default:
		dir.polled = true
		dir.addAt = time.Now().Add(w.pace.again)
		w.warn(dir, err)
	}
}

// lose takes note that the directory at a path is no longer the watched one. The watch may have served other paths.
func (w *fileWatch) lose(dir *watchedDir) {
	if !dir.watched {
		return
	}
	id := dir.id
	for _, other := range w.dirs {
		if other.watched && other.id == id {
			// In most cases fsnotify has forgotten it. What it still knew under this path would hide a new directory.
			_ = w.events.Remove(other.path)
			other.watched = false
			other.addAt = time.Now() // something else may be there already
		}
	}
}

// checkDirs looks whether the directories at the watched paths are still the watched ones. A mount, a link in the
// middle of a path that points elsewhere, or a parent that was renamed is told by no event.
func (w *fileWatch) checkDirs() {
	for _, dir := range w.dirs {
		if !dir.watched {
			continue
		}
		if id, err := identify(dir.path); err != nil || id != dir.id {
			w.lose(dir)
			dir.callAll()
		}
	}
}

// start tries for events, and adds all directories.
func (w *fileWatch) start() {
	events, err := w.open()
	if err != nil {
		w.refused(err)
		return
	}
	w.events, w.opened, w.openAt = events, time.Now(), time.Time{}
	if w.warned {
		w.warned = false
		w.logger.Info("file events are back, files are no longer looked at every so often")
	}
	for _, dir := range w.dirs {
		w.add(dir)
	}
}

// refused goes over to polling because there are no events at all.
func (w *fileWatch) refused(err error) {
	w.close()
	w.openAt = time.Now().Add(w.pace.again)
	for _, dir := range w.dirs {
		dir.polled = true
	}
	if !w.warned {
		w.warned = true
		w.logger.Warn("no file events, files are looked at every so often instead",
			"interval", w.pace.poll, "reason", err, "remedy", remedyFor(err))
	}
}

// close gives up the watcher, and waits for the goroutine of fsnotify.
func (w *fileWatch) close() {
	if w.events == nil {
		return
	}
	w.events.Close()
	w.events = nil
	for _, dir := range w.dirs {
		dir.watched, dir.addAt = false, time.Time{}
	}
}

func identify(path string) (dirID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return dirID{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return dirID{}, &fs.PathError{Op: "watch", Path: path, Err: syscall.ENOTDIR}
	}
	return dirID{device: uint64(stat.Dev), inode: stat.Ino}, nil
}

// remedyFor tells what helps against a refusal of inotify.
func remedyFor(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return "raise fs.inotify.max_user_instances (sysctl) or the limit of open files"
	case errors.Is(err, syscall.ENOSPC):
		return "raise fs.inotify.max_user_watches (sysctl)"
	case errors.Is(err, fs.ErrPermission):
		return "let the user of this process read the directory"
	case errors.Is(err, fsnotify.ErrClosed):
		return "none needed if it does not last"
	}
	return "see the reason; events are tried for again from time to time"
}
