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
	"slices"
	"sync"
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
	// owner or mode changed. missed says that no event told of it, or not in time: nobody knows when it changed. Calls for one
	// file come one at a time, those for different files come at the same time. One that blocks holds up only its own file.
	Changed func(missed bool)
}

const (
	// interval is the time between two looks at a file, and patientInterval that at one with a Quiet: news of it is not urgent.
	interval        = 2 * time.Second
	patientInterval = 5 * time.Second
	// hangTicks is for how many intervals a look may last before that is reported.
	hangTicks = 5
	// standstill is how late a turn is when this process was stopped or had no processor. Nobody knows when that happened
	// which the events tell of now.
	standstill = 500 * time.Millisecond
	// lookSoon is how long after an event its file is looked at: it may be another one, or be reached by another way.
	lookSoon = 20 * time.Millisecond
	// eventGrace is how long the event of a change that a look found is waited for.
	eventGrace = 100 * time.Millisecond
	// maxQuiet bounds the wait for a file that is never left alone, in multiples of its Quiet.
	maxQuiet = 10
)

// Watch watches files until ctx is done. It returns when no call is under way any more, so a look or a call that hangs holds it
// up. Where there are no events, a warning says so, and the looks go on.
func Watch(ctx context.Context, files []File, logger *slog.Logger) {
	var group sync.WaitGroup
	for _, file := range files {
		w := newWatcher(file, logger)
		group.Go(func() { w.run(ctx) })
	}
	group.Wait()
}

// watcher watches one file. It belongs to the goroutine of run.
type watcher struct {
	File
	logger   *slog.Logger
	interval time.Duration
	open     func() (*fsnotify.Watcher, error)

	events  *fsnotify.Watcher // nil while there are none
	openErr error             // why
	turnAt  time.Time         // the last turn of run
	warned  bool              // that there are no events; until there are again

	looks    sync.WaitGroup
	looked   chan look // the result of the look under way
	looking  bool
	overdue  int         // ticks since it began
	soon     *time.Timer // to the next look
	seen     signature
	realName string // of the file that Path leads to
	event    bool   // one came for the file since the last look began

	call       *time.Timer // to the next call of Changed
	since      time.Time   // of the first reason for it; zero: none
	missed     bool        // the call is for changes that events did not tell
	unexpected bool        // the same, unless their event comes still
}

// look is what was found at a file.
type look struct {
	seen     signature
	realName string
	event    bool  // one came for the file before the look
	err      error // why there are no events
}

func newWatcher(file File, logger *slog.Logger) *watcher {
	w := &watcher{File: file, logger: logger, interval: interval, open: fsnotify.NewWatcher, looked: make(chan look, 1)}
	if file.Quiet > 0 {
		w.interval = patientInterval
	}
	if logger == nil {
		w.logger = slog.New(slog.DiscardHandler)
	}
	return w
}

func (w *watcher) run(ctx context.Context) {
	defer w.looks.Wait()
	defer w.close()
	w.events, w.openErr = w.open()
	w.seen.size = -1 // unlike any, so that the first look leads to a call
	w.soon, w.call = time.NewTimer(0), time.NewTimer(time.Hour)
	defer w.soon.Stop()
	defer w.call.Stop()
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
			if ok {
				w.onEvent(filepath.Base(event.Name))
			} else {
				w.onFailure(fsnotify.ErrClosed)
			}
		case err := <-failures:
			w.onFailure(err)
		case <-ticker.C:
			w.tick()
		case <-w.soon.C:
			w.look()
		case found := <-w.looked:
			w.onLook(found)
		case <-w.call.C:
			missed := w.missed || w.unexpected
			w.missed, w.unexpected, w.since = false, false, time.Time{}
			w.Changed(missed)
		}
		w.checkStandstill()
	}
}

func (w *watcher) checkStandstill() {
	now := time.Now()
	rest := now.Sub(w.turnAt)
	w.turnAt = now
	if rest > w.interval+standstill {
		w.logger.Debug("file events were not taken for a while, the file is looked at", "path", w.Path, "duration", rest)
		w.callMissed()
	}
}

// callIn has Changed called after a time in which it is not asked for again.
func (w *watcher) callIn(wait time.Duration) {
	if w.since.IsZero() {
		w.since = time.Now()
	}
	w.call.Reset(min(wait, time.Until(w.since.Add(max(eventGrace, maxQuiet*w.Quiet)))))
}

// callMissed has Changed called, as there may be changes that no event tells.
func (w *watcher) callMissed() {
	w.missed = true
	w.callIn(0)
}

// onEvent takes an event in a watched directory. Which operation it was does not matter: what is on disk by now does. One that is
// not for the file may be for a link on the way to it, or for the directory.
func (w *watcher) onEvent(name string) {
	w.soon.Reset(lookSoon)
	if name == filepath.Base(w.Path) || name == w.realName {
		w.event, w.unexpected = true, false
		w.callIn(w.Quiet)
	}
}

// onFailure goes on after an overflow. After anything else nobody knows what is still watched, and the next tick begins anew.
func (w *watcher) onFailure(err error) {
	w.logger.Debug("file events were lost, the file is looked at", "path", w.Path, "reason", err)
	if !errors.Is(err, fsnotify.ErrEventOverflow) {
		w.close()
	}
	w.callMissed()
	w.soon.Reset(0)
}

// close gives up the events, and waits for the goroutine of fsnotify.
func (w *watcher) close() {
	if w.events != nil {
		w.events.Close()
		w.events = nil
	}
}

func (w *watcher) tick() {
	if w.events == nil {
		w.events, w.openErr = w.open()
	}
	if !w.looking {
		w.look()
		return
	}
	if w.overdue++; w.overdue == hangTicks {
		w.logger.Warn("a file may have changed and cannot be looked at; see whether its disk or mount answers", "path", w.Path)
		w.callMissed()
	}
}

// look begins a look beside run, as it may hang.
func (w *watcher) look() {
	if w.looking {
		w.soon.Reset(lookSoon)
		return
	}
	w.looking = true
	events, found := w.events, look{event: w.event, err: w.openErr}
	w.event = false
	w.looks.Go(func() {
		found.realName = filepath.Base(w.Path)
		dirs := []string{filepath.Dir(w.Path)}
		if real, err := filepath.EvalSymlinks(w.Path); err == nil {
			found.realName = filepath.Base(real)
			dirs = append(dirs, filepath.Dir(real))
		}
		if events != nil {
			found.err = watch(events, dirs)
		}
		found.seen = signatureOf(w.Path)
		w.looked <- found
	})
}

// watch watches dirs and nothing else: also one that is watched already, as another may have taken its place.
func watch(events *fsnotify.Watcher, dirs []string) (refused error) {
	for _, dir := range dirs {
		err := events.Add(dir)
		passing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fsnotify.ErrClosed)
		if err != nil && !passing {
			refused = err
		}
	}
	for _, dir := range events.WatchList() {
		if !slices.Contains(dirs, dir) {
			_ = events.Remove(dir) // fails where it went with the directory
		}
	}
	return refused
}

func (w *watcher) onLook(found look) {
	if w.overdue >= hangTicks {
		w.logger.Info("the file can be looked at again", "path", w.Path)
		w.callMissed()
	}
	w.looking, w.overdue = false, 0
	if found.seen != w.seen {
		w.unexpected = w.unexpected || !found.event && !w.event
		w.callIn(max(w.Quiet, eventGrace))
	}
	w.seen, w.realName = found.seen, found.realName
	if found.err != nil && !w.warned {
		w.logger.Warn("no file events, the file is checked at an interval instead", "path", w.Path, "interval", w.interval,
			"reason", found.err, "remedy", remedyFor(found.err))
	}
	if found.err == nil && w.warned {
		w.logger.Info("file events are back", "path", w.Path)
	}
	w.warned = found.err != nil
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

// signature is what stat tells about a file; zero where there is none. Two equal ones may hide a change within a tick of the
// file system's clock (milliseconds).
type signature struct {
	device, inode     uint64
	size              int64
	modified, changed syscall.Timespec
}

func signatureOf(path string) signature {
	var stat syscall.Stat_t
	for {
		switch err := syscall.Stat(path, &stat); err {
		case nil:
			return signature{stat.Dev, stat.Ino, stat.Size, stat.Mtim, stat.Ctim}
		case syscall.EINTR:
		default:
			return signature{}
		}
	}
}
