package filewatch

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// lookEvery is how many intervals pass between two looks at the way to a file, of which its own status may tell nothing.
	lookEvery = 5
	// lookSoon is how long after an event its file is looked at: it may be another one, or be reached by another way.
	lookSoon = 20 * time.Millisecond
	// maxQuiet bounds the wait for a file that is never left alone, in multiples of its Quiet.
	maxQuiet = 10
	// maxTries bounds how often the way to a file is followed anew when it changes meanwhile.
	maxTries = 10
)

// follow makes the calls for one file and looks at it, until ctx is done.
func (w *watcher) follow(ctx context.Context, f *watchedFile) {
	soon := time.NewTimer(0)
	defer soon.Stop()
	dues := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.news:
			if f.awaitQuiet(ctx); ctx.Err() != nil {
				return
			}
			f.work.Add(1)
			f.call(f.lost.Swap(false))
			f.work.Add(1)
			soon.Reset(lookSoon)
		case <-soon.C:
			w.look(f)
		case <-f.due:
			if dues++; dues%lookEvery == 0 || f.unwatched.Load() || f.looksChanged() {
				w.look(f)
			}
		}
	}
}

// tell has Changed called. It never blocks.
func (f *watchedFile) tell(lost bool) {
	if lost {
		f.lost.Store(true)
	}
	put(f.news)
}

func (f *watchedFile) call(lost bool) {
	f.calling.Lock()
	defer f.calling.Unlock()
	f.Changed(lost)
}

func (f *watchedFile) awaitQuiet(ctx context.Context) {
	for end := time.Now().Add(maxQuiet * f.Quiet); f.Quiet > 0 && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return
		case <-f.news:
		case <-time.After(f.Quiet):
			return
		}
	}
}

// looksChanged compares what stat tells about the file, which takes one system call.
func (f *watchedFile) looksChanged() bool {
	f.work.Add(1)
	defer f.work.Add(1)
	return signatureOf(f.Path) != f.seen
}

// look watches the way to a file as it is now, and tells when the way or the file is another than at the look before.
func (w *watcher) look(f *watchedFile) {
	f.work.Add(1)
	defer f.work.Add(1)
	moved := false
	unwatched := f.unwatched.Load()
	for range maxTries { // it may change before it is watched
		trail := trailOf(f.Path)
		same := slices.Equal(trail, f.trail)
		if !same {
			w.setTrail(f, trail)
			moved = true
		}
		w.watch(f)
		if same {
			break
		}
	}
	seen := signatureOf(f.Path)
	changed := seen != f.seen
	f.seen = seen
	if moved || changed {
		f.tell(moved || unwatched || f.unwatched.Load())
	}
}

// setTrail takes note of the way to a file, and ends the watches that no file needs any more.
func (w *watcher) setTrail(f *watchedFile, trail []spot) {
	w.mu.Lock()
	old, events := f.trail, w.events
	f.trail = trail
	needed := map[string]bool{}
	for _, other := range w.files {
		for _, s := range other.trail {
			needed[s.dir] = true
		}
	}
	w.mu.Unlock()
	for _, s := range old {
		if events != nil && !needed[s.dir] {
			_ = events.Remove(s.dir) // fails where it went with the directory
		}
	}
}

// watch watches every directory on the way to a file: also one that is watched already, as another may have taken its place.
func (w *watcher) watch(f *watchedFile) {
	w.mu.Lock()
	events := w.events
	w.mu.Unlock()
	if events == nil {
		f.unwatched.Store(true)
		return
	}
	failed := false
	for _, s := range f.trail {
		err := events.Add(s.dir)
		if err == nil {
			continue
		}
		failed = true // the others are watched all the same, that of the file above all
		passing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fsnotify.ErrClosed)
		if !passing && !f.warned {
			f.warned = true
			w.logger.Warn("no file events, the file is checked at an interval instead", "path", f.Path, "directory", s.dir,
				"interval", w.interval, "reason", err, "remedy", remedyFor(err))
		}
	}
	f.unwatched.Store(failed)
	f.warned = f.warned && failed
}
