package sinks

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

func TestWatchPollsWithoutInotify(t *testing.T) {
	w := newWatchTest(t)
	w.write("config", "1")
	pace := never
	pace.poll, pace.again = time.Millisecond, time.Millisecond
	var mu sync.Mutex
	refusal := error(&os.SyscallError{Syscall: "inotify_init1", Err: syscall.EMFILE})
	refused := make(chan struct{}, 1000)
	open := func() (*fsnotify.Watcher, error) {
		mu.Lock()
		defer mu.Unlock()
		if refusal != nil {
			select {
			case refused <- struct{}{}:
			default:
			}
			return nil, refusal
		}
		return fsnotify.NewWatcher()
	}
	w.watch(pace, open, localDisk, "config", "missing/config")
	w.write("config", "22")
	w.awaitText("config", "22")
	w.must(os.Mkdir(w.path("missing"), 0o700))
	w.write("missing/config", "1")
	w.await("missing/config")
	for range 3 {
		<-refused
	}
	log := w.log.String()
	if strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "fs.inotify.max_user_instances") {
		t.Errorf("log: %s", log)
	}
	mu.Lock()
	refusal = nil
	mu.Unlock()
	<-w.opened
	w.awaitLiveWatch("missing")
	if log := strings.TrimPrefix(w.log.String(), log); !strings.Contains(log, "events are back") || strings.Contains(log, "WARN") {
		t.Errorf("log: %s", log)
	}
}

// The file is written through a hard link in another directory: no event here, as on a network file system.
func TestWatchPollsNetworkFileSystems(t *testing.T) {
	w := newWatchTest(t)
	w.must(os.Mkdir(w.path("nfs"), 0o700), os.Mkdir(w.path("far"), 0o700))
	w.write("far/config", "1")
	w.must(os.Link(w.path("far/config"), w.path("nfs/config")))
	pace := never
	pace.poll = time.Millisecond
	w.watch(pace, nil, func(dir string) string {
		if filepath.Base(dir) == "nfs" {
			return "NFS"
		}
		return ""
	}, "nfs/config")
	w.write("far/config", "22")
	w.awaitText("nfs/config", "22")
	w.awaitLiveWatch("nfs")
	if log := w.log.String(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "(NFS)") {
		t.Errorf("log: %s", log)
	}
}

// A directory that inotify refuses is polled, while others have events.
func TestWatchPollsADirectoryThatIsRefused(t *testing.T) {
	w := newWatchTest(t)
	w.must(os.Mkdir(w.path("sub"), 0o700), os.Symlink("conf", w.path("sub/conf")))
	pace := never
	pace.poll = time.Millisecond
	w.watch(pace, nil, localDisk, "sub/conf/config", "last")
	w.must(os.Remove(w.path("sub/conf")), os.Mkdir(w.path("sub/conf"), 0o700))
	w.write("sub/conf/config", "1")
	w.await("sub/conf/config")
	w.write("sub/conf/config", "22")
	w.awaitText("sub/conf/config", "22")
	if log := w.log.String(); strings.Count(log, "level=WARN") != 1 {
		t.Errorf("log: %s", log)
	}
}

func TestNetworkFileSystem(t *testing.T) {
	if got := networkFileSystem("/proc"); got != "" {
		t.Errorf("/proc is on %s", got)
	}
	if got := networkFileSystem(filepath.Join(t.TempDir(), "missing")); got != "" {
		t.Errorf("a missing directory is on %s", got)
	}
	if networkFileSystems[int64(uint32(unix.CIFS_SUPER_MAGIC))] == "" {
		t.Error("a number with the highest bit set is not found")
	}
}
