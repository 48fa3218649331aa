// Package filewatch tells when files may have changed.
//
// It takes events from inotify, and looks at each file at an interval as well, for what no event tells: a change made by
// another machine, a mount, a parent directory that was renamed, inotify limits that are used up. A call means "look
// again"; it does not say what changed, and there may be more calls than changes.
package filewatch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// File is a file to be watched. It need not exist.
type File struct {
	Path string // absolute
	// Quiet is how long the file must be left alone before Changed is called, at most ten times as long in all. 0: not at all.
	Quiet time.Duration
	// Changed is called once at the start and whenever the file may have changed: written, replaced, removed, created, its
	// owner or mode changed. lost says that earlier changes may not have been told, or told late. Calls for one file come one
	// at a time, those for different files come at the same time. One that blocks holds up only its own file.
	Changed func(lost bool)
}

const (
	// interval is the time between two looks at a file of which no event tells, and patientInterval that where all files have a
	// Quiet: news of them is not urgent.
	interval        = time.Second
	patientInterval = 5 * time.Second
	// watchedEvery is how many intervals pass between two looks at another file.
	watchedEvery = 2
	// hangTicks is for how many intervals a look may last before that is told.
	hangTicks = 10
	// standstill is how late a look is when this process was stopped or had no processor. Nobody knows when that happened
	// which the events tell of now.
	standstill = 500 * time.Millisecond
)

// Watch watches files until ctx is done. It returns when no call is under way any more, so a look or a call that hangs holds it
// up. Where there are no events, one warning says so, and the looks go on.
func Watch(ctx context.Context, files []File, logger *slog.Logger) {
	pace := patientInterval
	for _, file := range files {
		if file.Quiet == 0 {
			pace = interval
		}
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
	ticks    int
	turnAt   time.Time // the last turn of run
	openedAt time.Time // when events were got last
	warned   bool      // that there are no events; until there are again

	mu     sync.Mutex        // guards events, which only run changes, and the trail of each file
	events *fsnotify.Watcher // nil while there is none
}

// watchedFile is a File and what is known of it. What has no other owner belongs to its goroutine.
type watchedFile struct {
	File
	news chan struct{} // 1 slot: it may have changed
	due  chan struct{} // 1 slot: it is to be looked at
	lost atomic.Bool   // goes with news
	work atomic.Int64  // begins and ends of looks and calls: odd while one is under way
	at   int64         // work at the last tick; belongs to run
	hung int           // ticks in a row that found the same look or call under way; belongs to run

	calling   sync.Mutex // held during a call
	trail     []spot     // guarded by watcher.mu
	seen      signature
	unwatched atomic.Bool // no event tells of it
	warned    bool        // that it is unwatched; until it is watched again
}

func newWatcher(files []File, logger *slog.Logger, interval time.Duration, open func() (*fsnotify.Watcher, error)) *watcher {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	w := &watcher{logger: logger, interval: interval, open: open}
	for _, file := range files {
		w.files = append(w.files, &watchedFile{File: file, news: make(chan struct{}, 1), due: make(chan struct{}, 1)})
	}
	return w
}

func (w *watcher) run(ctx context.Context) {
	w.start()
	defer w.calls.Wait()
	defer w.close()
	for _, f := range w.files {
		w.calls.Go(func() { w.follow(ctx, f) })
	}
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	w.turnAt = time.Now()
	for {
		var events chan fsnotify.Event
		var failures chan error
		if w.events != nil {
			events, failures = w.events.Events, w.events.Errors
		}
		select {
		case <-ctx.Done():
			return
		case event, ok := <-events:
			w.checkStandstill()
			if !ok {
				w.fail(fsnotify.ErrClosed)
			} else {
				w.dispatch(filepath.Clean(event.Name))
			}
		case err, ok := <-failures:
			w.checkStandstill()
			if !ok {
				err = fsnotify.ErrClosed
			}
			w.fail(err)
		case <-ticker.C:
			w.checkStandstill()
			w.tick()
		}
	}
}

// checkStandstill begins a turn.
func (w *watcher) checkStandstill() {
	now := time.Now()
	rest := now.Sub(w.turnAt)
	w.turnAt = now
	if rest > w.interval+standstill {
		w.logger.Debug("file events were not taken for a while, all files are looked at", "duration", rest)
		w.tellAll()
	}
}

// dispatch tells the files that an event at path may be about. Which operation it was does not matter: what is on disk by now
// does.
func (w *watcher) dispatch(path string) {
	dir, name := filepath.Dir(path), filepath.Base(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	// inotify has one watch for a directory, under the path that came first, whatever paths lead to it.
	var id fileID
	for _, f := range w.files {
		for _, s := range f.trail {
			if s.dir == dir {
				id = s.id
			}
		}
	}
	for _, f := range w.files {
		for i, s := range f.trail {
			switch {
			case s.dir == path: // it is not this directory any more, perhaps
				f.tell(true)
			case s.name == name && (s.dir == dir || s.id == id && id != fileID{}):
				f.tell(i < len(f.trail)-1 || f.unwatched.Load()) // a link that leads elsewhere now
			}
		}
	}
}

// tick has all files looked at, and says which ones cannot be.
func (w *watcher) tick() {
	w.ticks++
	if w.events == nil {
		w.start()
	}
	for _, f := range w.files {
		before := f.at
		f.at = f.work.Load()
		switch {
		case f.at%2 == 1 && f.at == before:
			if f.hung++; f.hung == hangTicks {
				w.logger.Warn("a file may have changed and cannot be looked at; see whether its disk or mount answers", "path", f.Path)
				w.calls.Go(func() { f.call(true) })
			}
			continue
		case f.hung >= hangTicks:
			w.logger.Info("the file can be looked at again", "path", f.Path)
			f.tell(true)
		}
		f.hung = 0
		if w.ticks%watchedEvery == 0 || f.unwatched.Load() {
			put(f.due)
		}
	}
}

// fail deals with an error of the watcher. After an overflow it goes on. After anything else nobody knows what it still
// watches (a directory that was renamed and removed before it was looked at is enough), and another one takes its
// place: at the next tick, where it failed soon, as it may fail for ever.
func (w *watcher) fail(err error) {
	defer w.tellAll()
	if errors.Is(err, fsnotify.ErrEventOverflow) {
		w.logger.Debug("file events were lost, all files are looked at", "reason", err)
		return
	}
	w.logger.Debug("the watcher failed, another one takes its place", "reason", err)
	w.close()
	if time.Since(w.openedAt) > w.interval {
		w.start()
	}
}

func (w *watcher) tellAll() {
	for _, f := range w.files {
		f.tell(true)
	}
}

// start tries for events. The files are watched by the next look at them.
func (w *watcher) start() {
	events, err := w.open()
	if err != nil {
		if !w.warned {
			w.warned = true
			w.logger.Warn("no file events, files are checked at an interval instead",
				"interval", w.interval, "reason", err, "remedy", remedyFor(err))
		}
		return
	}
	w.openedAt = time.Now()
	w.mu.Lock()
	w.events = events
	w.mu.Unlock()
	if w.warned {
		w.warned = false
		w.logger.Info("file events are back")
	}
}

// close gives up the watcher, and waits for the goroutine of fsnotify.
func (w *watcher) close() {
	w.mu.Lock()
	events := w.events
	w.events = nil
	w.mu.Unlock()
	if events != nil {
		events.Close()
	}
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
	}
	return "see the reason; events are tried for again all the time"
}

// put fills a channel of one slot.
func put(slot chan struct{}) {
	select {
	case slot <- struct{}{}:
	default:
	}
}
