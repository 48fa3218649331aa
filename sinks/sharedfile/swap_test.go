package sharedfile

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/standin"
)

const swapRight, swapDrifted = "<right/>", "<drifted/>"

// swapper puts one thing after the other at a path, as fast as it can: a file, links out of the directory, a directory, a
// FIFO.
type swapper struct {
	t             *testing.T
	path, outside string
}

func (s swapper) run(ctx context.Context) {
	next := s.path + ".next"
	kinds := []func() error{
		func() error { return os.WriteFile(next, []byte(swapDrifted), 0o640) },
		func() error { return os.Symlink(s.outside, next) },
		func() error { return os.WriteFile(next, []byte(swapDrifted), 0o640) },
		func() error { return os.Symlink("../outside/"+filepath.Base(s.outside), next) },
		func() error { return os.Mkdir(next, 0o755) },
		func() error { return unix.Mkfifo(next, 0o640) },
	}
	for turn := 0; ctx.Err() == nil; turn++ {
		err := kinds[turn%len(kinds)]()
		if err == nil {
			err = unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, s.path, unix.RENAME_EXCHANGE)
		}
		if errors.Is(err, unix.ENOENT) { // what was there was taken away as not ours to keep
			err = os.Rename(next, s.path)
		}
		if err != nil {
			s.t.Error(err)
			return
		}
		if err := os.RemoveAll(next); err != nil {
			s.t.Error(err)
			return
		}
	}
}

// Whatever is swapped for the file between the look at it and its use: nothing outside of the directory is changed, and
// nothing waits for the other end of a FIFO.
func TestNothingOutsideIsTouchedWhateverIsSwappedIn(t *testing.T) {
	top := t.TempDir()
	file, outside := filepath.Join(top, "conf", "config-prod.xml"), filepath.Join(top, "outside", "target.xml")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.Mkdir(filepath.Dir(outside), 0o755),
		os.WriteFile(file, []byte(swapDrifted), 0o640), os.WriteFile(outside, []byte(swapDrifted), 0o640)); err != nil {
		t.Fatal(err)
	}
	before := standin.StateOf(t, outside)
	in := New(file, wellFormed, slog.New(slog.DiscardHandler))
	put := func(current []byte) ([]byte, error) {
		if string(current) == swapDrifted || string(current) == swapRight {
			return []byte(swapRight), nil
		}
		return nil, errors.New("that is neither")
	}
	ctx, stop := context.WithCancel(t.Context())
	var swaps sync.WaitGroup
	swaps.Go(func() { swapper{t, file, outside}.run(ctx) })

	done := make(chan struct{})
	went, failed := map[string]int{}, map[string]int{}
	enough := func() bool { // by its end, each has met the file and something else
		for _, name := range []string{"look", "restore", "overwrite"} {
			if went[name] < 30 || failed[name] < 30 {
				return false
			}
		}
		return true
	}
	go func() {
		defer close(done)
		for round := 0; round < 2000 || !enough(); round++ {
			for name, operation := range map[string]func() error{
				"look":    func() error { _, _, err := in.Read(t.Context()); return err },
				"restore": func() error { return in.Update(t.Context(), put) },
				"recover": func() error { return in.SettleStrays(t.Context()) },
				"overwrite": func() error {
					return in.with(t.Context(), func(ctx context.Context, p place) error { return p.overwrite(ctx, put) })
				},
			} {
				if operation() == nil {
					went[name]++
				} else {
					failed[name]++
				}
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(3 * time.Minute): // it takes a second
		t.Fatal("hangs")
	}
	stop()
	swaps.Wait()
	t.Logf("went well: %v, failed: %v", went, failed)
	if after := standin.StateOf(t, outside); after != before {
		t.Errorf("outside, %+v became %+v", before, after)
	}
	if entries, err := os.ReadDir(filepath.Dir(outside)); err != nil || len(entries) != 1 {
		t.Errorf("outside there is %v, %v", entries, err)
	}

	// When that is over, all is well again.
	if err := errors.Join(os.RemoveAll(file), os.WriteFile(file, []byte(swapDrifted), 0o640), in.SettleStrays(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := in.Update(t.Context(), put); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != swapRight {
		t.Errorf("restored to %q, %v", got, err)
	}
	in.Wait(context.Background())
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range open {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, top) {
			t.Errorf("left open: %s", target)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(file) && e.Type().IsRegular() {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}
