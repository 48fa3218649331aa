package filewatch

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// A file is left alone before its change is told, and one that never is is told of all the same. Nothing takes events here, as
// those of a real file come late on a busy machine.
func TestWatchAwaitsQuiet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	synctest.Test(t, func(t *testing.T) { // in which only waits take time
		const quiet, pause = 200 * time.Millisecond, 25 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan time.Time, 100)
		w := newWatcher([]File{{Path: path, Quiet: quiet, Changed: func(bool) { told <- time.Now() }}}, nil, never, nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.follow(ctx, w.files[0])
		}()
		<-told // the call at the start
		var last time.Time
		for range 5 {
			time.Sleep(pause)
			last = time.Now()
			w.files[0].notify(false)
		}
		if waited := (<-told).Sub(last); waited != quiet {
			t.Errorf("told %v after the last change, want %v", waited, quiet)
		}
		time.Sleep(time.Minute)
		for len(told) > 0 {
			<-told
		}
		began := time.Now()
		for time.Since(began) < 2*maxQuiet*quiet && len(told) == 0 {
			w.files[0].notify(false)
			time.Sleep(pause)
		}
		if len(told) == 0 {
			t.Fatal("a file that is never left alone is not told of")
		}
		if waited := (<-told).Sub(began); waited < maxQuiet*quiet {
			t.Errorf("told after %v, want %v", waited, maxQuiet*quiet)
		}
		cancel()
		<-done
	})
}
