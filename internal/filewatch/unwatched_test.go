package filewatch

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"campaign-credsync/test/policy"
	"campaign-credsync/test/skip"
)

func TestWatchLooksWithoutInotify(t *testing.T) {
	w := newWatchTest(t)
	w.write("config", "1")
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
	w.watch(often, open, "config", "missing/config")
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
func TestWatchSeesWhatNoEventTells(t *testing.T) {
	w := newWatchTest(t)
	w.must(os.Mkdir(w.path("nfs"), 0o700), os.Mkdir(w.path("far"), 0o700))
	w.write("far/config", "1")
	w.must(os.Link(w.path("far/config"), w.path("nfs/config")))
	w.watch(often, nil, "nfs/config")
	w.write("far/config", "22")
	w.awaitText("nfs/config", "22")
	w.awaitLiveWatch("nfs")
	for line := range strings.Lines(w.log.String()) {
		if !strings.Contains(line, "be looked at") { // a look may take ten of these short intervals on a busy machine
			t.Errorf("log: %s", line)
		}
	}
}

// A directory that inotify refuses is looked at, and it is told that events may have been lost.
func TestWatchLooksWhereInotifyRefuses(t *testing.T) {
	if !policy.Alone(t) {
		return
	}
	policy.Forbid(t, policy.Rule{Call: unix.SYS_INOTIFY_ADD_WATCH}.Says(unix.ENOSPC))
	w := newWatchTest(t)
	w.watch(often, nil, "config")
	for _, text := range []string{"1", "22"} {
		before := w.missed["config"].Load()
		w.write("config", text)
		w.awaitText("config", text)
		if w.missed["config"].Load() == before {
			t.Error("it is not told that changes may have been missed")
		}
	}
	if log := w.log.String(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "fs.inotify.max_user_watches") {
		t.Errorf("log: %s", log)
	}
}

// A mount that does not answer is told of once, by a call and in the log, and does not hold up other files.
func TestWatchTellsOfAHang(t *testing.T) {
	w := newWatchTest(t)
	w.must(os.Mkdir(w.path("dead"), 0o700))
	w.write("dead/config", "1")
	w.watch(often, nil, "dead/config", "config")
	w.awaitLiveWatch("dead")
	before := w.missed["dead/config"].Load()
	over := hang(t, w.path("dead"))
	for w.missed["dead/config"].Load() == before {
		w.await("dead/config")
	}
	w.write("config", "1")
	w.awaitText("config", "1")
	time.Sleep(50 * often)
	w.drain("dead/config")
	time.Sleep(50 * often)
	select {
	case <-w.called["dead/config"]:
		t.Error("it is told again and again")
	default:
	}
	over()
	w.await("dead/config")
	w.awaitLiveWatch("dead")
	for deadline := time.Now().Add(time.Minute); !strings.Contains(w.log.String(), "again") && time.Now().Before(deadline); {
		time.Sleep(often)
	}
	if log := w.log.String(); strings.Count(log, "cannot be looked at") != 1 || strings.Count(log, "can be looked at again") != 1 {
		t.Errorf("log: %s", log)
	}
}

// hang mounts what never answers over a directory.
func hang(t *testing.T, dir string) (over func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Mount("hangs", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fd))
	}
	if err != nil {
		skip.Unable(t, "needs root and /dev/fuse: "+err.Error())
	}
	over = sync.OnceFunc(func() {
		unix.Close(fd) // whoever waits gets an error
		unix.Unmount(dir, unix.MNT_DETACH)
	})
	t.Cleanup(over)
	return over
}
