package sinks

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/skip"
)

const (
	swapRight   = `<serverconf><shared><ims authIMSTAClientId="right"/></shared></serverconf>`
	swapDrifted = `<serverconf><shared><ims authIMSTAClientId="mallory"/></shared></serverconf>`
)

var swapWanted = credential.Attributes{{Name: attrClientID, Value: "right"}}

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
	before := statOutside(t, outside)
	in := NewInstance(InstanceConfig{Name: "prod", File: file, StateDir: t.TempDir()})
	ctx, stop := context.WithCancel(t.Context())
	var swaps sync.WaitGroup
	swaps.Go(func() { swapper{t, file, outside}.run(ctx) })

	done := make(chan struct{})
	went, failed := map[string]int{}, map[string]int{}
	enough := func() bool { // by its end, each has met the file and something else
		for _, name := range []string{"look", "restore", "overwrite"} {
			if went[name] < 100 || failed[name] < 100 {
				return false
			}
		}
		return true
	}
	go func() {
		defer close(done)
		for round := 0; round < 5000 || !enough(); round++ {
			for name, operation := range map[string]func() error{
				"look":    func() error { _, err := in.Look(t.Context()); return err },
				"restore": func() error { _, err := in.Restore(t.Context(), swapWanted); return err },
				"recover": func() error { return in.Recover(t.Context()) },
				"overwrite": func() error {
					return in.file.overwrite(t.Context(), in.splice(swapWanted, new(credential.Attributes)))
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
	if after := statOutside(t, outside); after != before {
		t.Errorf("outside, %+v became %+v", before, after)
	}
	if entries, err := os.ReadDir(filepath.Dir(outside)); err != nil || len(entries) != 1 {
		t.Errorf("outside there is %v, %v", entries, err)
	}

	// When that is over, all is well again.
	if err := errors.Join(os.RemoveAll(file), os.WriteFile(file, []byte(swapDrifted), 0o640), in.Recover(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Restore(t.Context(), swapWanted); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != swapRight {
		t.Errorf("restored to %q, %v", got, err)
	}
	in.Wait(context.Background())
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

// outsideState is all that a change of a file would show in.
type outsideState struct {
	content     string
	mode        uint32
	inode       uint64
	links       uint64
	mtim, ctime unix.Timespec
}

func statOutside(t *testing.T, path string) outsideState {
	t.Helper()
	var stat unix.Stat_t
	content, err := os.ReadFile(path)
	if err := errors.Join(err, unix.Lstat(path, &stat)); err != nil {
		t.Fatal(err)
	}
	return outsideState{string(content), stat.Mode, stat.Ino, uint64(stat.Nlink), stat.Mtim, stat.Ctim}
}

// The name of a copy can be foretold. What lies in wait there is neither followed nor removed, it is told of once, and drift
// is put back all the same.
func TestLinkAtTheNameOfACopy(t *testing.T) {
	for _, x := range []struct {
		name  string
		plant func(outside, path string) error
	}{
		{"symbolic link", os.Symlink},
		{"directory", func(_, path string) error { return os.Mkdir(path, 0o755) }},
		{"FIFO", func(_, path string) error { return unix.Mkfifo(path, 0o640) }},
		{"hard link", os.Link},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCampaign(t)
			log := c.logged()
			outside := filepath.Join(filepath.Dir(filepath.Dir(c.file)), "outside")
			name := filepath.Join(filepath.Dir(c.file), copyName("config-prod.xml", []byte(swapDrifted), []byte(swapRight)))
			if err := errors.Join(os.WriteFile(outside, []byte(swapDrifted), 0o640), x.plant(outside, name)); err != nil {
				t.Fatal(err)
			}
			before, planted := statOutside(t, outside), inodeOf(t, name)
			for range 2 {
				if err := os.WriteFile(c.file, []byte(swapDrifted), 0o640); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Restore(t.Context(), swapWanted); err != nil || c.content() != swapRight {
					t.Errorf("restored to %q, %v", c.content(), err)
				}
				c.Wait(context.Background())
			}
			if after := statOutside(t, outside); after != before || inodeOf(t, name) != planted {
				t.Errorf("outside, %+v became %+v", before, after)
			}
			if got := log.String(); strings.Count(got, "left alone") != 1 || !strings.Contains(got, name) {
				t.Errorf("told:\n%s", got)
			}
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			c.wantClean()
		})
	}
}

// A link is followed within its directory only, also when it says so with the whole path.
func TestLinkWithTheWholePath(t *testing.T) {
	c := newCampaign(t)
	real := filepath.Join(filepath.Dir(c.file), "real.xml")
	if err := errors.Join(os.Remove(c.file), os.WriteFile(real, []byte(swapDrifted), 0o640), os.Symlink(real, c.file)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Restore(t.Context(), swapWanted); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(c.file); err != nil || target != real || c.content() != swapRight {
		t.Errorf("the link leads to %q, %v, where %q is", target, err, c.content())
	}
	c.wantClean()
}

// A file that seems to be huge is refused, and does not take all memory.
func TestHugeFileIsRefused(t *testing.T) {
	c := newCampaign(t)
	if err := os.Truncate(c.file, 1<<40); err != nil {
		skip.Unable(t, "the file system has no files that large: "+err.Error())
	}
	if _, err := c.Look(t.Context()); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("error is %v", err)
	}
}
