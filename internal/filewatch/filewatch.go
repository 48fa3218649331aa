// Package filewatch tells when files may have changed.
//
// It takes events from inotify, and looks at each file at an interval as well, for what no event tells: a change made by
// another machine, a mount, a parent directory that was renamed, inotify limits that are used up. A call means "look
// again"; it does not say what changed, and there may be more calls than changes.
package filewatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// File is a file to be watched. It need not exist.
type File struct {
	Path string // absolute
	// Quiet is how long the file must be left alone before Changed is called, at most ten times as long in all. 0: not at all.
	Quiet time.Duration
	// Changed is called once at the start and whenever the file may have changed: written, replaced, removed, created, its
	// owner or mode changed. lost says that earlier changes may not have been reported, or reported late. Calls come at the same
	// time. One that blocks holds up only its own file.
	Changed func(lost bool)
}

const (
	// interval is the time between two looks at a file of which no event tells, and patientInterval that where all files have a
	// Quiet. Another file is looked at half as often.
	interval        = time.Second
	patientInterval = 5 * time.Second
	// standstill is how late a look is when this process was stopped or had no processor. Nobody knows when that happened
	// which the events tell of now.
	standstill = 500 * time.Millisecond
	// remedy is what helps against a refusal of inotify, by its reason.
	remedy = "too many open files: raise fs.inotify.max_user_instances (sysctl) or the limit of open files; " +
		"no space left: raise fs.inotify.max_user_watches; permission denied: let the user of this process read the directory"
)

// Watch watches files until ctx is done. It returns when no call is under way any more, so a look or a call that hangs holds it
// up. Where there are no events, one warning says so, and the looks go on.
func Watch(ctx context.Context, files []File, logger *slog.Logger) {
	pace := patientInterval
	if slices.ContainsFunc(files, func(f File) bool { return f.Quiet == 0 }) {
		pace = interval
	}
	newWatcher(files, logger, pace, fsnotify.NewWatcher).run(ctx)
}

// watcher is one Watch. What has no other owner belongs to the goroutine of run.
type watcher struct {
	files    []*watchedFile
	logger   *slog.Logger
	interval time.Duration
	open     func() (*fsnotify.Watcher, error)
	calls    sync.WaitGroup
	warned   bool         // that there are no events
	takenAt  atomic.Int64 // when events were taken last, in nanoseconds since begun, after files were told of what was lost until then
	begun    time.Time

	mu     sync.Mutex        // guards events, which only run sets, and the points of each file
	events *fsnotify.Watcher // nil while there is none
}

func newWatcher(files []File, logger *slog.Logger, interval time.Duration, open func() (*fsnotify.Watcher, error)) *watcher {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	w := &watcher{logger: logger, interval: interval, open: open, begun: time.Now()}
	for _, file := range files {
		w.files = append(w.files, &watchedFile{File: file, notified: make(chan struct{}, 1)})
	}
	return w
}

func (w *watcher) run(ctx context.Context) {
	w.start()
	for _, f := range w.files {
		w.calls.Go(func() { w.follow(ctx, f) })
	}
	defer w.calls.Wait()
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	for w.taken(); ; w.taken() {
		var events chan fsnotify.Event
		var failures chan error
		if w.events != nil {
			events, failures = w.events.Events, w.events.Errors
		}
		var event fsnotify.Event
		var failure error
		select {
		case <-ctx.Done():
			if w.events != nil {
				w.events.Close() // which waits for its goroutine
			}
			return
		case event = <-events:
		case failure = <-failures: // an overflow, or nobody knows what it still watches
		case <-ticker.C:
			if w.events == nil {
				w.start()
			}
		}
		if since, stood := w.stoodStill(); failure == nil && stood {
			failure = fmt.Errorf("none was taken for %v", since)
		}
		if failure != nil {
			w.logger.Debug("file events were lost, all files are looked at", "reason", failure)
			w.notifyAll()
			if !errors.Is(failure, fsnotify.ErrEventOverflow) {
				time.Sleep(lookSoon) // it may fail again and again
			}
		}
		if event.Name != "" {
			w.dispatch(filepath.Clean(event.Name))
		}
	}
}

// start tries for events. The files are watched by the next look at them.
func (w *watcher) start() {
	events, err := w.open()
	if err != nil {
		if !w.warned {
			w.warned = true
			w.logger.Warn("no file events, files are checked at an interval instead",
				"interval", w.interval, "reason", err, "remedy", remedy)
		}
		return
	}
	w.mu.Lock()
	w.events = events
	w.mu.Unlock()
	if w.warned {
		w.logger.Info("file events are back")
	}
}

func (w *watcher) taken() { w.takenAt.Store(int64(time.Since(w.begun))) }

// stoodStill reports whether this process was stopped or had no processor, and since when events were taken last.
func (w *watcher) stoodStill() (since time.Duration, stood bool) {
	since = time.Since(w.begun) - time.Duration(w.takenAt.Load())
	return since, since > w.interval+standstill
}

func (w *watcher) notifyAll() {
	for _, f := range w.files {
		f.notify(true)
	}
}

// dispatch notifies the files that an event at path may be about. Which operation it was does not matter: what is on disk by now
// does. Nor does the directory, as inotify knows it by the path that came first, whatever paths lead to it.
func (w *watcher) dispatch(path string) {
	name := filepath.Base(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.files {
		for i, p := range f.points {
			switch {
			case p.dir == path: // it is not this directory any more, perhaps
				f.notify(true)
			case p.name == name:
				f.notify(i < len(f.points)-1) // a link that leads elsewhere now
			}
		}
	}
}

// watchedFile is a File and what is known of it. What has no other owner belongs to its goroutine.
type watchedFile struct {
	File
	notified chan struct{} // 1 slot: it may have changed
	lost     atomic.Bool   // goes with notified

	points    []watchPoint // guarded by watcher.mu
	seen      signature
	unwatched bool // no event tells of it
	warned    bool // that it is unwatched; until it is watched again
}

// notify has Changed called. It never blocks.
func (f *watchedFile) notify(lost bool) {
	if lost {
		f.lost.Store(true)
	}
	select {
	case f.notified <- struct{}{}:
	default:
	}
}
