package sources

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"campaign-credsync/internal/durable"
)

const (
	// quiet is how long the watched file must be left alone before it is read: half a secret-id is a wrong one, and
	// wrong ones are counted.
	quiet = 100 * time.Millisecond
	// rewatchFirst and rewatchCap bound the wait before a directory that cannot be watched is tried again.
	rewatchFirst = time.Second
	rewatchCap   = time.Minute
)

// Run watches what the login reads (the secret-id, token, JWT or certificate) and calls changed when another one is there
// than at NewVault or at the last call, so that the next poll can be brought forward; changed may be called concurrently.
// It returns when ctx is done and everything it started has ended; it runs once at a time. Where the directory cannot be
// watched it looks once a minute; nothing depends on it, as each login reads the file anyway.
func (v *Vault) Run(ctx context.Context, changed func()) {
	var watches sync.WaitGroup
	for _, w := range v.watched {
		w.changed = func() {
			if v.session.wrapping != nil {
				v.session.wrapping.soon(false)
			}
			changed()
		}
		watches.Go(func() { w.run(ctx, v.logger) })
	}
	watches.Wait()
}

func (w *fileWatch) run(ctx context.Context, logger *slog.Logger) {
	wait := rewatchFirst
	warned := false
	for {
		began := time.Now()
		err := w.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > rewatchCap {
			wait, warned = rewatchFirst, false
		}
		if !warned {
			warned = true
			logger.Warn("file cannot be watched, a change of it is found later", "file", w.file, "reason", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, rewatchCap)
		w.look()
	}
}

// fileWatch belongs to NewVault, and then to its goroutine of Run.
type fileWatch struct {
	file    string
	changed func()
	seen    [sha256.Size]byte // zero: not there, or empty
}

func newFileWatch(file string) *fileWatch {
	w := &fileWatch{file: file}
	w.seen = w.sum()
	return w
}

func (w *fileWatch) sum() [sha256.Size]byte {
	content, err := durable.ReadFile(w.file, maxLine)
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
	if now != ([sha256.Size]byte{}) {
		w.changed()
	}
}

// watch watches the directory until ctx is done or the directory cannot be watched.
func (w *fileWatch) watch(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("inotify: %w (fs.inotify.max_user_instances?)", err)
	}
	defer watcher.Close()
	dir, name := filepath.Split(filepath.Clean(w.file))
	dir = filepath.Clean(dir)
	if err := watcher.Add(dir); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	w.look() // what happened before the watch was there
	timer := time.NewTimer(quiet)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			w.look()
		case event, ok := <-watcher.Events:
			if !ok {
				return errors.New("the watch ended")
			}
			if filepath.Clean(event.Name) == dir && event.Has(fsnotify.Remove|fsnotify.Rename) {
				return fmt.Errorf("watch %s: the directory is gone", dir)
			}
			// ..data is the link that Kubernetes turns to a new set of files.
			if base := filepath.Base(event.Name); base == name || base == "..data" {
				timer.Reset(quiet)
			}
		case err, ok := <-watcher.Errors:
			if !ok {
				return errors.New("the watch ended")
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch %s: %w", dir, err)
			}
			timer.Reset(quiet)
		}
	}
}
