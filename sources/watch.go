package sources

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"campaign-credsync/internal/regularfile"
)

const (
	// quiet is how long a watched file must be left alone before it is read: half a secret-id is a wrong one, and wrong
	// ones are counted. The same time must pass before the content of a File is believed.
	quiet = 100 * time.Millisecond
	// maxDelays bounds that for a file that is never left alone, as one that a program touches again and again.
	maxDelays = 10
	// rewatchFirst and rewatchCap bound the wait before what cannot be watched is tried again.
	rewatchFirst = time.Second
	rewatchCap   = time.Minute
)

// Run watches what the login reads (the secret-id, token, JWT or certificate) and calls changed when another one is there
// than at NewVault or at the last call, so that the next poll can be brought forward.
// It returns when ctx is done and everything it started has ended. A call waits for the end of the one before, which may take
// long on a disk that does not answer. Where the directory cannot be watched it looks once a minute; nothing depends on it, as
// each login reads the file anyway.
func (v *Vault) Run(ctx context.Context, changed func()) {
	select {
	case v.watching <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-v.watching }()
	for _, w := range v.watched {
		w.changed = func() {
			if v.session.wrapping != nil {
				v.session.wrapping.soon(false)
			}
			changed()
		}
	}
	watchFiles(ctx, v.logger, quiet, v.watched...)
}

// fileWatch belongs to its maker, and then to the goroutine of watchFiles.
type fileWatch struct {
	file    string
	limit   int64 // above what it may have, in bytes
	absence bool  // that there is no content any more is a change, too
	changed func()
	seen    [sha256.Size]byte // zero: not there, or empty
}

func newFileWatch(file string) *fileWatch {
	w := &fileWatch{file: file, limit: maxLine}
	w.seen = w.sum()
	return w
}

func (w *fileWatch) sum() [sha256.Size]byte { return sumOf(w.file, w.limit) }

// sumOf tells contents of a file apart; it is zero for one that is empty or cannot be read, and for no name.
func sumOf(file string, limit int64) [sha256.Size]byte {
	if file == "" {
		return [sha256.Size]byte{}
	}
	content, err := regularfile.Read(file, limit)
	if err != nil || len(content) == 0 {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(content)
}

// look compares the content: an event says only that something happened.
func (w *fileWatch) look() {
	now := w.sum()
	if now == w.seen {
		return
	}
	w.seen = now
	if w.absence || now != ([sha256.Size]byte{}) {
		w.changed()
	}
}

// watchFiles calls the changed of each file whose content has changed and that was then left alone for delay, or changed for
// maxDelays times as long, until ctx is done. One inotify serves them all, as a user has few of them. What cannot be watched is looked at once a minute.
func watchFiles(ctx context.Context, logger *slog.Logger, delay time.Duration, files ...*fileWatch) {
	w := &filesWatch{logger: logger, delay: delay, files: files}
	wait := rewatchFirst
	for {
		began := time.Now()
		err := w.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > rewatchCap {
			wait, w.warned = rewatchFirst, nil
		}
		for _, f := range w.files {
			w.warn(f, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, rewatchCap)
		w.lookAll()
	}
}

// filesWatch belongs to the goroutine of watchFiles.
type filesWatch struct {
	logger *slog.Logger
	delay  time.Duration
	files  []*fileWatch
	warned map[*fileWatch]bool

	inotify *fsnotify.Watcher
	trails  map[*fileWatch][]spot
}

func (w *filesWatch) warn(f *fileWatch, err error) {
	if w.warned[f] {
		return
	}
	if w.warned == nil {
		w.warned = map[*fileWatch]bool{}
	}
	w.warned[f] = true
	w.logger.Warn("file cannot be watched, a change of it is found later", "file", f.file, "reason", err.Error())
}

func (w *filesWatch) lookAll() {
	for _, f := range w.files {
		f.look()
	}
}

// watch watches until ctx is done or inotify fails.
func (w *filesWatch) watch(ctx context.Context) error {
	var err error
	if w.inotify, err = fsnotify.NewWatcher(); err != nil {
		return fmt.Errorf("inotify: %w (fs.inotify.max_user_instances?)", err)
	}
	defer w.inotify.Close()
	w.trails = map[*fileWatch][]spot{}
	timer := time.NewTimer(w.follow())
	defer timer.Stop()
	var latest time.Time // when to look, whatever happens until then; zero: nothing has happened
	happened := func() {
		now := time.Now()
		if latest.IsZero() {
			latest = now.Add(maxDelays * w.delay)
		}
		timer.Reset(min(w.delay, latest.Sub(now)))
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			latest = time.Time{}
			timer.Reset(w.follow())
		case event, ok := <-w.inotify.Events:
			if !ok {
				return errors.New("the watch ended")
			}
			if w.concerns(filepath.Clean(event.Name)) {
				happened()
			}
		case err, ok := <-w.inotify.Errors:
			if !ok {
				return errors.New("the watch ended")
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("inotify: %w", err)
			}
			happened()
		}
	}
}

// follow watches where the files are now, looks at them, and returns when to do so again if nothing happens before.
func (w *filesWatch) follow() time.Duration {
	needed := map[string]bool{}
	all := true
	for _, f := range w.files {
		trail, err := w.followOne(f)
		if w.trails[f] = trail; err != nil {
			all = false
			w.warn(f, err)
		} else {
			delete(w.warned, f)
		}
		for _, s := range trail {
			needed[s.dir] = true
		}
	}
	for _, dir := range w.inotify.WatchList() {
		if !needed[dir] {
			w.inotify.Remove(dir) // fails where it went with the directory
		}
	}
	w.lookAll() // after the watches are there, so that nothing is missed
	if !all {
		return rewatchCap
	}
	return never
}

const never = time.Duration(1<<63 - 1)

// followOne watches every directory on the way to a file. The way may change meanwhile, and is then followed anew.
func (w *filesWatch) followOne(f *fileWatch) (trail []spot, err error) {
	trail = trailOf(f.file)
	for range 10 {
		err = nil
		for _, s := range trail {
			// Also one that is watched already: another directory may have taken its name.
			if addErr := w.inotify.Add(s.dir); addErr != nil && err == nil {
				err = fmt.Errorf("watch %s: %w", s.dir, addErr)
			}
		}
		before := trail
		if trail = trailOf(f.file); slices.Equal(before, trail) {
			return trail, err
		}
	}
	return trail, errors.New("the links on its way keep changing")
}

// concerns reports whether an event at path may be about one of the files.
func (w *filesWatch) concerns(path string) bool {
	dir, name := filepath.Dir(path), filepath.Base(path)
	for _, trail := range w.trails {
		for _, s := range trail {
			if s.dir == path || s.dir == dir && s.name == name {
				return true
			}
		}
	}
	return false
}
