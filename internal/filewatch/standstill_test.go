package filewatch

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// A process that was stopped is told that changes may have been missed with the first change that it is told of, also where that was
// found before the goroutine that takes events runs again: so nothing takes events here.
func TestChangeAfterAStandstill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		lost := make(chan bool)
		w := newWatcher([]File{{Path: path, Changed: func(l bool) { lost <- l }}}, nil, time.Hour, nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.follow(ctx, w.files[0])
		}()
		told := func(want bool) {
			t.Helper()
			if got := <-lost; got != want {
				t.Errorf("told that changes may have been missed: %v, want %v", got, want)
			}
		}
		told(true) // at the start nothing is watched yet
		w.taken()
		w.files[0].notify(false)
		told(false)
		time.Sleep(time.Hour + 2*standstill)
		w.files[0].notify(false)
		told(true)
		cancel()
		<-done
	})
}
