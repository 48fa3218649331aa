package survey

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Writing is how a file was written.
type Writing struct {
	Replaced    bool     `json:"replaced"`       // by another inode
	Changes     int      `json:"changes"`        // of the file in place; the kernel joins those that follow each other at once
	Sizes       []int64  `json:"sizes"`          // that were seen, in bytes, at most 20
	OtherNames  []string `json:"other_names"`    // that appeared beside it
	FirstMillis float64  `json:"first_after_ms"` // from the start of nlserver to the first change
	LastMillis  float64  `json:"last_after_ms"`  // and to the last one
	Rights      string   `json:"rights"`         // owner, group and mode, if they changed: "0:0 0640 -> 0:0 0600"
}

const mostSizes = 20

// watch notes how a file is written. It uses inotify itself, as fsnotify tells nothing of a file that is closed, and reads ahead less
// quickly, so that the kernel joins more changes.
type watch struct {
	file          string
	names         []string // of the file: that of the path, and of what it leads to
	beside        []string // names that were there before
	inotify, stop int      // the second is an eventfd
	was           *os.File // held open, so that its inode's number is not used again
	before        unix.Stat_t
	began         time.Time
	seen          Writing
	first, last   time.Time
	ended         chan struct{}
}

const watched = unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE

func startWatch(file string) (w *watch, err error) {
	w = &watch{file: file, ended: make(chan struct{}), seen: Writing{Sizes: []int64{}, OtherNames: []string{}}}
	if w.was, err = os.Open(file); err != nil {
		return nil, err
	}
	w.names = []string{filepath.Base(file)}
	if target, err := filepath.EvalSymlinks(file); err == nil {
		w.names = append(w.names, filepath.Base(target))
	}
	entries, _ := os.ReadDir(filepath.Dir(file)) // what cannot be read here cannot be watched either
	for _, e := range entries {
		w.beside = append(w.beside, e.Name())
	}
	if err = unix.Fstat(int(w.was.Fd()), &w.before); err == nil {
		if w.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
			if w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err == nil {
				_, err = unix.InotifyAddWatch(w.inotify, filepath.Dir(file), watched)
			}
		}
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("watch %s: %w", filepath.Dir(file), err)
	}
	w.began = time.Now()
	go w.follow()
	return w, nil
}

func (w *watch) close() {
	w.was.Close()
	for _, fd := range []int{w.inotify, w.stop} {
		if fd > 0 {
			unix.Close(fd)
		}
	}
}

// end returns what was seen.
func (w *watch) end() Writing {
	unix.Write(w.stop, binary.NativeEndian.AppendUint64(nil, 1))
	<-w.ended
	defer w.close()
	if !w.first.IsZero() {
		w.seen.FirstMillis, w.seen.LastMillis = millis(w.first.Sub(w.began)), millis(w.last.Sub(w.began))
	}
	var now unix.Stat_t
	if err := unix.Stat(w.file, &now); err == nil {
		w.seen.Replaced = now.Ino != w.before.Ino || now.Dev != w.before.Dev
		if rights(now) != rights(w.before) {
			w.seen.Rights = rights(w.before) + " -> " + rights(now)
		}
	}
	return w.seen
}

func rights(s unix.Stat_t) string { return fmt.Sprintf("%d:%d %04o", s.Uid, s.Gid, s.Mode&0o7777) }

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// follow notes events until end is called, and what was in the queue by then.
func (w *watch) follow() {
	defer close(w.ended)
	buffer := make([]byte, 64<<10)
	for stopping := false; ; {
		n, err := unix.Read(w.inotify, buffer)
		switch {
		case err == nil:
			w.note(buffer[:n])
			continue
		case err != unix.EAGAIN && err != unix.EINTR, stopping && err == unix.EAGAIN:
			return
		}
		ready := []unix.PollFd{{Fd: int32(w.inotify), Events: unix.POLLIN}, {Fd: int32(w.stop), Events: unix.POLLIN}}
		unix.Poll(ready, -1) // an error brings the next look forward
		stopping = ready[1].Revents != 0
	}
}

// note takes events apart: watch, mask, cookie, length of the name, name.
func (w *watch) note(events []byte) {
	for len(events) >= unix.SizeofInotifyEvent {
		mask, length := binary.NativeEndian.Uint32(events[4:]), int(binary.NativeEndian.Uint32(events[12:]))
		name := string(bytes.TrimRight(events[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+length], "\x00"))
		events = events[unix.SizeofInotifyEvent+length:]
		if !slices.Contains(w.names, name) {
			// Our own copies come and go beside the file.
			if !strings.Contains(name, ".credsync-") && name != "" && !slices.Contains(slices.Concat(w.beside, w.seen.OtherNames), name) {
				w.seen.OtherNames = append(w.seen.OtherNames, name)
			}
			continue
		}
		w.last = time.Now()
		if w.first.IsZero() {
			w.first = w.last
		}
		if mask&unix.IN_MODIFY != 0 {
			w.seen.Changes++
		}
		var now unix.Stat_t
		if sizes := w.seen.Sizes; unix.Stat(w.file, &now) == nil && len(sizes) < mostSizes && (len(sizes) == 0 || sizes[len(sizes)-1] != now.Size) {
			w.seen.Sizes = append(sizes, now.Size)
		}
	}
}

// how names the way. Truncating and one write are two changes at most.
func (w Writing) how(changed bool) string {
	switch {
	case !changed && w.Changes == 0 && !w.Replaced:
		return "nothing"
	case w.Replaced:
		return "rename"
	case w.Changes > 2:
		return "pieces"
	}
	return "in_place"
}
