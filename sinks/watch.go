package sinks

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watch calls the func of a file (files: absolute path → func) whenever that file may have changed: written, replaced,
// removed, created, its owner or mode changed; also when its directory came, went or was replaced, and when events were
// lost. It calls too often rather than too seldom, and once for each file at the start: look what is there. missed says that
// changes since the call before may not have been told: events were lost, or not to be had.
//
// The funcs are called from one goroutine and must not block: what they hold up is the news of the other files. Events
// come from inotify on the files' directories. Where there is none (limits used up, network file systems), the files
// are looked at every second instead, and one warning says so. Watch returns when ctx is done.
func Watch(ctx context.Context, files map[string]func(missed bool), logger *slog.Logger) {
	newFileWatch(files, logger, defaultPace, fsnotify.NewWatcher, networkFileSystem).run(ctx)
}

// watchPace says when a watch looks for what no event tells.
type watchPace struct {
	tick       time.Duration // are the watched directories still those at their paths?
	poll       time.Duration // where there are no events
	beat       time.Duration // the longest rest; a much longer one tells that this process was stopped; 0 = not minded
	again      time.Duration // try for events again after they were refused
	lasting    time.Duration // a watcher that fails sooner than this is not replaced at once
	first, max time.Duration // back-off for a directory that is missing; jittered
}

var defaultPace = watchPace{
	tick: 5 * time.Second, poll: time.Second, beat: time.Second, again: time.Minute, lasting: time.Second,
	first: 100 * time.Millisecond, max: 10 * time.Second,
}

// fileWatch is one Watch. All of it belongs to the goroutine in run.
type fileWatch struct {
	files   []*watchedFile
	dirs    map[string]*watchedDir // by path
	logger  *slog.Logger
	pace    watchPace
	open    func() (*fsnotify.Watcher, error)
	network func(dir string) string // names the network file system that dir is on, "" for a local one
	events  *fsnotify.Watcher       // nil while there is none
	opened  time.Time               // when events were got last
	openAt  time.Time               // when to try for events again; zero while there are
	warned  bool                    // that there are no events; until there are again
	tickAt  time.Time
	pollAt  time.Time
	awakeAt time.Time // last turn
}

func newFileWatch(files map[string]func(missed bool), logger *slog.Logger, pace watchPace,
	open func() (*fsnotify.Watcher, error), network func(string) string,
) *fileWatch {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	w := &fileWatch{
		dirs: map[string]*watchedDir{}, logger: logger, pace: pace, open: open, network: network,
	}
	for path, call := range files {
		w.files = append(w.files, &watchedFile{path: filepath.Clean(path), call: call})
	}
	return w
}

func (w *fileWatch) run(ctx context.Context) {
	defer w.close()
	for _, file := range w.files {
		w.follow(file)
		file.seen = signatureOf(file.path)
	}
	w.start()
	for _, dir := range w.dirs {
		if !dir.watched { // add called the others
			dir.callAll()
		}
	}
	w.wake()
	w.tickAt = time.Now().Add(w.pace.tick)
	w.pollAt = time.Now().Add(w.pace.poll)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var events chan fsnotify.Event
		var failures chan error
		if w.events != nil {
			events, failures = w.events.Events, w.events.Errors
		}
		timer.Reset(time.Until(w.next()))
		select {
		case <-ctx.Done():
			return
		case event, ok := <-events:
			w.wake()
			if !ok {
				w.fail(fsnotify.ErrClosed)
				continue
			}
			w.handle(event)
		case err, ok := <-failures:
			w.wake()
			if !ok {
				err = fsnotify.ErrClosed
			}
			w.fail(err)
		case <-timer.C:
			w.wake()
			w.look()
		}
	}
}

// standstill is how late a turn comes when this process was stopped, or had no processor: nobody knows when that happened
// which its events tell of now.
const standstill = 500 * time.Millisecond

// wake begins a turn.
func (w *fileWatch) wake() {
	now := time.Now()
	rest := now.Sub(w.awakeAt)
	if w.pace.beat > 0 && !w.awakeAt.IsZero() && rest > w.pace.beat+standstill {
		w.logger.Debug("file events were not taken for a while, all files are looked at", "duration", rest)
		w.callAll()
	}
	w.awakeAt = now
}

// next tells when there is something to do without an event. Trying for events again has no time of its own: while there
// are none, there is polling.
func (w *fileWatch) next() time.Time {
	next := w.tickAt
	sooner := func(at time.Time) {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	polling := false
	for _, dir := range w.dirs {
		polling = polling || dir.polled
		sooner(dir.addAt)
	}
	if polling {
		sooner(w.pollAt)
	}
	if w.pace.beat > 0 && !w.awakeAt.IsZero() {
		sooner(w.awakeAt.Add(w.pace.beat))
	}
	return next
}

// handle passes an event on to the files that it may be about. Which operation it was does not matter: what is on disk
// by now does.
func (w *fileWatch) handle(event fsnotify.Event) {
	name := filepath.Clean(event.Name)
	if parent := w.dirs[filepath.Dir(name)]; parent != nil {
		base := filepath.Base(name)
		for _, dir := range w.dirs {
			// inotify has one watch for a directory, under the path that came first, whatever paths lead to it.
			if dir == parent || dir.watched && parent.watched && dir.id == parent.id {
				for _, file := range dir.names[base] {
					file.call(dir.polled) // then events are only those of this machine
				}
			}
		}
		for _, file := range parent.names[base] {
			if w.follow(file) {
				file.call(true)
			}
		}
	}
	// An event about a directory itself: from its own watch, or from that of its parent.
	if dir := w.dirs[name]; dir != nil {
		switch {
		case event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename):
			w.lose(dir)
		case !dir.watched:
			w.add(dir)
		}
		dir.callAll()
	}
}

// fail deals with an error of the watcher. After an overflow it goes on. After anything else nobody knows what it still
// watches (a directory that was renamed and removed before it was looked at is enough), and another one takes its
// place. One that fails soon may fail for ever, and is not replaced at once.
func (w *fileWatch) fail(err error) {
	if errors.Is(err, fsnotify.ErrEventOverflow) {
		w.logger.Debug("file events were lost, all files are looked at", "reason", err)
		w.checkDirs() // the loss may include the end of a directory
		w.callAll()
		return
	}
	if time.Since(w.opened) < w.pace.lasting {
		w.refused(err)
	} else {
		w.logger.Debug("the watcher failed, another one takes its place", "reason", err)
		w.close()
		w.start()
	}
	w.callAll()
}

// look does what is due by the clock.
func (w *fileWatch) look() {
	now := time.Now()
	if !w.openAt.IsZero() && !now.Before(w.openAt) {
		w.start()
	}
	for _, dir := range w.dirs {
		if !dir.addAt.IsZero() && !now.Before(dir.addAt) && w.events != nil {
			w.add(dir)
		}
	}
	if !now.Before(w.pollAt) {
		w.pollAt = now.Add(w.pace.poll)
		w.poll()
	}
	if !now.Before(w.tickAt) {
		w.tickAt = now.Add(w.pace.tick)
		w.checkDirs()
		for _, file := range w.files {
			if w.follow(file) {
				file.call(true)
			}
		}
		w.lookAtAll()
	}
}

func (w *fileWatch) callAll() {
	for _, file := range w.files {
		file.call(true)
	}
}
