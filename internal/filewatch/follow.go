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
	// thoroughEvery is how many looks pass between two at the way to a file, which costs ten times as much as a stat.
	thoroughEvery = 5
	// lookSoon is how long after an event its file is looked at: it may be another one, or be reached by another way.
	lookSoon = 20 * time.Millisecond
	// hangIntervals is how many intervals a look or a call may last before that is reported.
	hangIntervals = 10
	// maxQuiet bounds the wait for a file that is never left alone, in multiples of its Quiet.
	maxQuiet = 10
	// maxTries bounds how often the way to a file is followed anew when it changes meanwhile.
	maxTries = 10
)

// follow makes the calls for one file and looks at it, until ctx is done.
func (w *watcher) follow(ctx context.Context, f *watchedFile) {
	next := time.NewTimer(0)
	defer next.Stop()
	soon, looks := true, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.notified:
			if f.awaitQuiet(ctx); ctx.Err() != nil {
				return
			}
			_, stood := w.stoodStill() // which the goroutine that takes events may not have noticed yet
			lost := f.lost.Swap(false) || stood
			w.bounded(f, func() { f.Changed(lost) })
			if !soon {
				soon = true
				next.Reset(lookSoon)
			}
		case <-next.C:
			looks++
			w.look(f, soon || f.unwatched || looks%thoroughEvery == 0)
			soon = false
			if f.unwatched {
				next.Reset(w.interval)
			} else {
				next.Reset(2 * w.interval)
			}
		}
	}
}

func (f *watchedFile) awaitQuiet(ctx context.Context) {
	for end := time.Now().Add(maxQuiet * f.Quiet); f.Quiet > 0 && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return
		case <-f.notified:
		case <-time.After(f.Quiet):
			return
		}
	}
}

// look looks at a file, and at the way to it if that is asked for or the file is another.
func (w *watcher) look(f *watchedFile, thorough bool) {
	w.bounded(f, func() {
		if thorough || signatureOf(f.Path) != f.seen {
			w.refresh(f)
		}
	})
}

// bounded reports when a look or a call hangs.
func (w *watcher) bounded(f *watchedFile, do func()) {
	w.calls.Add(1)
	hang := time.AfterFunc(hangIntervals*w.interval, func() {
		defer w.calls.Done()
		w.logger.Warn("a file may have changed and cannot be looked at; see whether its disk or mount answers", "path", f.Path)
		f.Changed(true)
	})
	do()
	if hang.Stop() {
		w.calls.Done()
		return
	}
	w.logger.Info("the file can be looked at again", "path", f.Path)
	f.notify(true)
}

// refresh watches the way to a file as it is now, and notifies when the way or the file is another than before.
func (w *watcher) refresh(f *watchedFile) {
	moved, unwatched := false, f.unwatched
	for range maxTries { // it may change before it is watched
		points := watchPointsOf(f.Path)
		same := slices.Equal(points, f.points)
		if !same {
			moved = true
			w.mu.Lock()
			f.points = points
			w.mu.Unlock()
		}
		w.watch(f)
		if same {
			break
		}
	}
	seen := signatureOf(f.Path)
	if moved || seen != f.seen {
		f.notify(moved || unwatched || f.unwatched)
	}
	f.seen = seen
}

// watch watches every directory on the way to a file: also one that is watched already, as another may have taken its place.
// A directory that no file needs any more stays watched until it is removed; its events cost a look at the files of that name.
func (w *watcher) watch(f *watchedFile) {
	w.mu.Lock()
	events := w.events
	w.mu.Unlock()
	f.unwatched = events == nil
	if f.unwatched {
		return
	}
	for _, p := range f.points {
		err := events.Add(p.dir)
		if err == nil {
			continue
		}
		f.unwatched = true // the others are watched all the same, that of the file above all
		passing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fsnotify.ErrClosed)
		if !passing && !f.warned {
			f.warned = true
			w.logger.Warn("no file events, the file is checked at an interval instead", "path", f.Path, "directory", p.dir,
				"interval", w.interval, "reason", err, "remedy", remedy)
		}
	}
	f.warned = f.warned && f.unwatched
}
