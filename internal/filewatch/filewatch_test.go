package filewatch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"campaign-credsync/test/logtest"
)

// watchTest runs a watch on files below dir.
type watchTest struct {
	t      *testing.T
	dir    string
	called map[string]chan struct{} // one slot each: "look again"
	missed map[string]*atomic.Int64 // times that it said that changes may have been missed
	opened chan *fsnotify.Watcher   // each watcher that was opened
	log    *logtest.Buffer
}

const (
	// never is an interval at which nothing happens within a test but what events bring about.
	never = time.Hour
	often = 5 * time.Millisecond
)

func newWatchTest(t *testing.T) *watchTest {
	t.Helper()
	current := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, current) })
	return &watchTest{
		t: t, dir: t.TempDir(), called: map[string]chan struct{}{}, missed: map[string]*atomic.Int64{},
		opened: make(chan *fsnotify.Watcher, 100), log: &logtest.Buffer{},
	}
}

// watch starts a watch that ends before the directories are removed. A nil open takes real events.
func (w *watchTest) watch(interval time.Duration, open func() (*fsnotify.Watcher, error), names ...string) {
	w.t.Helper()
	var files []File
	for _, name := range names {
		called := make(chan struct{}, 1)
		w.called[name] = called
		missed := new(atomic.Int64)
		w.missed[name] = missed
		files = append(files, File{Path: w.path(name), Changed: func(lost bool) {
			if lost {
				missed.Add(1)
			}
			put(called)
		}})
	}
	if open == nil {
		open = fsnotify.NewWatcher
	}
	noted := func() (*fsnotify.Watcher, error) {
		watcher, err := open()
		if err == nil {
			w.opened <- watcher
		}
		return watcher, err
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	running.Go(func() { newWatcher(files, logger, interval, noted).run(ctx) })
	w.t.Cleanup(func() { cancel(); running.Wait() })
	for _, name := range names {
		w.await(name) // the call at the start
	}
}

func (w *watchTest) path(name string) string { return filepath.Join(w.dir, name) }

func (w *watchTest) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watchTest) must(errs ...error) {
	w.t.Helper()
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
}

// await waits for a call. The limit only keeps a broken watch from hanging the test.
func (w *watchTest) await(name string) {
	w.t.Helper()
	select {
	case <-w.called[name]:
	case <-time.After(time.Minute):
		w.t.Fatalf("no call for %s; log: %s", name, w.log)
	}
}

// awaitText waits for a call that finds text, as who is called looks at the file.
func (w *watchTest) awaitText(name, text string) {
	w.t.Helper()
	for {
		w.await(name)
		if got, err := os.ReadFile(w.path(name)); err == nil && string(got) == text {
			return
		}
	}
}

// settle waits until the calls for everything done so far were made, and forgets them: events come in order, so those
// of the file "last", which must be in the same directory and watched, come last.
func (w *watchTest) settle(last string) {
	w.t.Helper()
	for range 2 { // twice: a call for an earlier event of "last" may have been waiting
		w.drain(last)
		w.write(last, "x")
		w.await(last)
	}
	for name := range w.called {
		w.drain(name)
	}
}

// put fills a channel of one slot.
func put(slot chan struct{}) {
	select {
	case slot <- struct{}{}:
	default:
	}
}

func (w *watchTest) drain(name string) {
	select {
	case <-w.called[name]:
	default:
	}
}

func TestWatchTellsOfEachChange(t *testing.T) {
	w := newWatchTest(t)
	w.write("config", "1")
	w.write("other", "1")
	w.watch(never, nil, "config", "last")
	for _, change := range []struct {
		name string
		make func() error
	}{
		{"write", func() error { return os.WriteFile(w.path("config"), []byte("2"), 0) }},
		{"truncate", func() error { return os.Truncate(w.path("config"), 0) }},
		{"chmod", func() error { return os.Chmod(w.path("config"), 0o640) }},
		{"setxattr", func() error { return ignoring(unix.ENOTSUP, unix.Setxattr(w.path("config"), "user.x", []byte("1"), 0)) }},
		{"rename over it", func() error { return os.Rename(w.path("other"), w.path("config")) }},
		{"rename away", func() error { return os.Rename(w.path("config"), w.path("other")) }},
		{"create", func() error { return os.WriteFile(w.path("config"), nil, 0o600) }},
		{"exchange", func() error {
			return unix.Renameat2(unix.AT_FDCWD, w.path("config"), unix.AT_FDCWD, w.path("other"), unix.RENAME_EXCHANGE)
		}},
		{"remove", func() error { return os.Remove(w.path("config")) }},
	} {
		w.settle("last")
		if err := change.make(); err != nil {
			t.Fatalf("%s: %v", change.name, err)
		}
		t.Log(change.name)
		w.await("config")
	}
}

func ignoring(ignored, err error) error {
	if errors.Is(err, ignored) {
		return nil
	}
	return err
}

func TestWatchLeavesOtherFilesAlone(t *testing.T) {
	w := newWatchTest(t)
	w.write("config", "1")
	w.watch(never, nil, "config", "last")
	w.settle("last")
	w.write("config.tmp", "1")
	w.must(os.Remove(w.path("config.tmp")))
	w.write("xconfig", "1")
	w.drain("last")
	w.write("last", "2")
	w.await("last")
	select {
	case <-w.called["config"]:
		t.Error("called for another file")
	default:
	}
}

func TestWatchFilesOfSeveralDirectories(t *testing.T) {
	w := newWatchTest(t)
	w.must(os.Mkdir(w.path("a"), 0o700), os.Mkdir(w.path("b"), 0o700), os.Symlink(w.path("a"), w.path("c")))
	w.write("a/config", "1")
	w.write("b/config", "1")
	w.watch(never, nil, "a/config", "b/config", "c/config", "a/last", "b/last")
	w.settle("a/last")
	w.settle("b/last")
	w.write("b/config", "2")
	w.await("b/config")
	// Two paths to one directory: inotify knows it once.
	w.write("a/config", "2")
	w.await("a/config")
	w.await("c/config")
	w.must(os.RemoveAll(w.path("a")), os.Mkdir(w.path("a"), 0o700))
	w.write("a/config", "3")
	w.awaitText("a/config", "3")
	w.awaitLiveWatch("a")
	w.awaitLiveWatch("c")
}

func TestWatchFollowsTheDirectory(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(w *watchTest) error
	}{
		{"renamed away and back", func(w *watchTest) error {
			return errors.Join(os.Rename(w.path("conf"), w.path("away")), os.Rename(w.path("away"), w.path("conf")))
		}},
		{"another one in its place", func(w *watchTest) error {
			return errors.Join(os.Rename(w.path("conf"), w.path("away")), os.Mkdir(w.path("conf"), 0o700))
		}},
		{"exchanged", func(w *watchTest) error {
			return errors.Join(os.Mkdir(w.path("new"), 0o700),
				unix.Renameat2(unix.AT_FDCWD, w.path("conf"), unix.AT_FDCWD, w.path("new"), unix.RENAME_EXCHANGE))
		}},
		{"removed and made again", func(w *watchTest) error {
			return errors.Join(os.RemoveAll(w.path("conf")), os.Mkdir(w.path("conf"), 0o700))
		}},
		{"moved out and removed", func(w *watchTest) error {
			return errors.Join(os.Rename(w.path("conf"), w.path("away")), os.RemoveAll(w.path("away")),
				os.Mkdir(w.path("conf"), 0o700))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWatchTest(t)
			w.must(os.Mkdir(w.path("conf"), 0o700))
			w.write("conf/config", "1")
			w.watch(never, nil, "conf/config")
			w.drain("conf/config")
			w.must(test.make(w))
			w.await("conf/config") // the loss
			w.write("conf/config", "2")
			w.awaitText("conf/config", "2")
			w.write("conf/config", "3")
			w.awaitText("conf/config", "3")
			w.awaitLiveWatch("conf")
		})
	}
}

// awaitLiveWatch waits until a file made in a directory is told of, which shows that it is this directory that is
// watched, and not only that a call was made for its loss.
func (w *watchTest) awaitLiveWatch(dir string) {
	w.t.Helper()
	name := filepath.Join(dir, "config")
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		w.drain(name)
		w.must(os.Chmod(w.path(name), 0o600))
		select {
		case <-w.called[name]:
			// It may have been a late call; a watch answers again and again.
			answered := true
			for range 20 {
				w.must(os.Chmod(w.path(name), 0o600))
				select {
				case <-w.called[name]:
				case <-time.After(10 * time.Second):
					answered = false
				}
			}
			if answered {
				return
			}
		case <-time.After(10 * time.Second):
		}
	}
	w.t.Fatalf("%s is not watched; log: %s", dir, w.log)
}

func TestWatchAwaitsAMissingDirectory(t *testing.T) {
	w := newWatchTest(t)
	w.watch(never, nil, "a/b/config")
	w.must(os.MkdirAll(w.path("a/b"), 0o700))
	w.write("a/b/config", "1")
	w.await("a/b/config")
	w.awaitLiveWatch("a/b")
	if w.log.String() != "" {
		t.Errorf("log: %s", w.log)
	}
}

// What no event tells: the directory at the path is another one, and the watched one was not touched.
func TestWatchNoticesAnotherDirectoryWithoutAnEvent(t *testing.T) {
	t.Run("link", func(t *testing.T) {
		w := newWatchTest(t)
		w.must(os.Mkdir(w.path("a"), 0o700), os.Mkdir(w.path("b"), 0o700), os.Symlink("a", w.path("conf")))
		w.write("a/config", "1")
		w.write("b/config", "2")
		w.watch(often, nil, "conf/config")
		w.must(os.Symlink("b", w.path("link")), os.Rename(w.path("link"), w.path("conf")))
		w.awaitText("conf/config", "2")
		w.awaitLiveWatch("conf")
	})
	t.Run("parent", func(t *testing.T) {
		w := newWatchTest(t)
		w.must(os.MkdirAll(w.path("home/conf"), 0o700))
		w.write("home/conf/config", "1")
		w.watch(often, nil, "home/conf/config")
		w.must(os.Rename(w.path("home"), w.path("old")), os.MkdirAll(w.path("home/conf"), 0o700))
		w.write("home/conf/config", "2")
		w.awaitText("home/conf/config", "2")
		w.awaitLiveWatch("home/conf")
	})
}

func TestWatchFollowsLinksToTheFile(t *testing.T) {
	w := newWatchTest(t)
	w.must(os.MkdirAll(w.path("conf"), 0o700), os.MkdirAll(w.path("volume"), 0o700), os.MkdirAll(w.path("new"), 0o700))
	w.write("volume/data", "1")
	w.write("new/data", "new")
	w.must(os.Symlink("../volume/link", w.path("conf/config")), os.Symlink("data", w.path("volume/link")))
	w.watch(never, nil, "conf/config")
	w.write("volume/data", "2")
	w.await("conf/config")
	w.must(os.Symlink("../new/data", w.path("conf/next")), os.Rename(w.path("conf/next"), w.path("conf/config")))
	w.awaitText("conf/config", "new")
	w.write("new/data", "newer")
	w.awaitText("conf/config", "newer")
	w.awaitLiveWatch("conf")
	// A link to itself is a file that is not there, not the end of the watch.
	w.must(os.Symlink("config", w.path("conf/loop")), os.Rename(w.path("conf/loop"), w.path("conf/config")))
	w.await("conf/config")
	w.must(os.Remove(w.path("conf/config")))
	w.write("conf/config", "3")
	w.awaitText("conf/config", "3")
}

func TestWatchLooksAtEverythingAfterAnOverflow(t *testing.T) {
	w := newWatchTest(t)
	w.must(os.Mkdir(w.path("a"), 0o700), os.Mkdir(w.path("b"), 0o700))
	w.must(os.Symlink("a", w.path("link")))
	w.watch(never, nil, "a/config", "b/config", "link/config")
	watcher := <-w.opened
	w.drain("a/config")
	w.drain("b/config")
	before := w.missed["a/config"].Load()
	w.write("a/config", "1")
	w.awaitText("a/config", "1")
	if n := w.missed["a/config"].Load() - before; n != 0 {
		t.Errorf("%d times, changes were told as missed that an event told of", n)
	}
	// Another directory, of which no event tells: what was lost may have been just that.
	w.write("b/config", "1")
	w.must(os.Symlink("b", w.path("next")), os.Rename(w.path("next"), w.path("link")))
	w.await("b/config")
	watcher.Errors <- fsnotify.ErrEventOverflow
	w.await("b/config")
	w.await("link/config")
	w.awaitLiveWatch("link")
	for deadline := time.Now().Add(time.Minute); w.missed["a/config"].Load() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("changes that were missed are not told as such")
		}
	}
}

func TestWatchDoesNotSpinOnAWatcherThatFails(t *testing.T) {
	w := newWatchTest(t)
	w.write("config", "1")
	w.watch(never, nil, "config")
	watcher := <-w.opened
	began := time.Now()
	for range 5 {
		watcher.Errors <- syscall.EBADF
	}
	if d := time.Since(began); d < 4*lookSoon {
		t.Errorf("five failures were taken within %v", d)
	}
	w.await("config")
	w.awaitLiveWatch(".")
}

// The public function, as the daemon uses it.
func TestWatchEndsWithItsContext(t *testing.T) {
	current := goleak.IgnoreCurrent()
	path := filepath.Join(t.TempDir(), "config")
	called := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, []File{{Path: path, Changed: func(bool) { put(called) }}}, nil)
	}()
	<-called
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-called
	cancel()
	<-done
	goleak.VerifyNone(t, current)
}
