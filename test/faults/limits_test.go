package faults_test

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// descriptors limits those of the running daemon, which has as many as it needs by then.
func descriptors(w *world.World, limit uint64) {
	w.T.Helper()
	var now unix.Rlimit
	w.Must(unix.Prlimit(w.Running.PID(), unix.RLIMIT_NOFILE, nil, &now))
	w.Must(unix.Prlimit(w.Running.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: now.Max}, nil))
}

// Whoever asks and does not hang up takes no descriptor from the work, and none from the next who asks.
func TestIdleQuestionersHoldNothingUp(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	descriptors(w, 64)
	for range 60 {
		conn, err := net.Dial("unix", w.Path("control.sock"))
		w.Must(err)
		defer conn.Close()
		_, err = conn.Write([]byte("GET /status HTTP/1.1\r\nHost: daemon\r\n\r\n"))
		w.Must(err)
		go http.ReadResponse(bufio.NewReader(conn), nil) // of those whose turn it is
	}
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	_, secrets["prod"] = w.NewSecret("prod")
	w.OnDisk("prod", secrets["prod"])
	w.InSync(2)
}

// A lack of descriptors passes, and the instance's file is kept from a second daemon after it as before.
func TestSecondDaemonAfterALackOfDescriptors(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	all, err := os.ReadFile("/proc/net/unix")
	w.Must(err)
	var stat unix.Stat_t
	w.Must(unix.Stat(w.Path("nl6", "conf"), &stat))
	name := regexp.MustCompile(`@campaign-credsync/[0-9a-f]+/` + strconv.FormatUint(stat.Ino, 10) + `/[0-9a-f]+`).FindString(string(all))
	if name == "" {
		t.Fatal("no claim is to be seen")
	}
	ask := func() error {
		conn, err := net.DialTimeout("unix", name, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	}
	descriptors(w, 1)
	for range 5 {
		ask()
		time.Sleep(10 * time.Millisecond)
	}
	descriptors(w, 1024)
	for range 10_000 { // more than the kernel's queue takes
		ask()
	}
	b := secondOf(w, "prod")
	b.start()
	b.refused(w.File("prod"))
}
