package faults_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// Ten thousand connect to the control socket: some say nothing, some send half a header or a body, some ask for a history of 16 MiB and do not
// read, and one sends headers up to 1 GiB. The daemon has few of them open, and memory for no more than sixteen answers; meanwhile new versions are
// applied, drift is reverted, and status is answered.
func TestControlSocketIsFlooded(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Programs: world.Plain()})
	nearlyFull(w)
	path := filepath.Join(w.StateDir(), "history.jsonl")
	w.Must(os.Rename(path, path+".1"))
	nearlyFull(w)
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	descriptors := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Running.PID()))
		w.Must(err)
		return len(entries)
	}
	before, most := descriptors(), 0

	says := []string{
		"", "GET /status HTTP/1.1\r\nHost: dae", "POST /sync HTTP/1.1\r\nHost: daemon\r\nContent-Length: 1000000000\r\n\r\nx",
		"GET /history HTTP/1.1\r\nHost: daemon\r\n\r\n", strings.Repeat("GET /metrics HTTP/1.1\r\nHost: daemon\r\n\r\n", 100),
	}
	for range 16 { // before the others come, so that each has a whole history waiting for it
		conn, err := dialled(w.Path("control.sock"))
		w.Must(err)
		defer conn.Close()
		_, err = io.WriteString(conn, says[3])
		w.Must(err)
		_, err = conn.Read(make([]byte, 1))
		w.Must(err)
	}
	const all = 10_000
	var open []net.Conn
	flooded := make(chan error, 1)
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	go func() {
		for i := range all {
			conn, err := dialled(w.Path("control.sock"))
			if err != nil {
				flooded <- err
				return
			}
			conn.SetDeadline(time.Now().Add(world.Patience))
			io.WriteString(conn, says[i%len(says)])         // it may be closed meanwhile
			if open = append(open, conn); len(open) > 500 { // of which the kernel has most in its queue
				open[0].Close()
				open = open[1:]
			}
		}
		flooded <- nil
	}()
	headers := make(chan int, 1)
	go func() {
		conn, err := dialled(w.Path("control.sock"))
		if err != nil {
			headers <- -1
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(world.Patience))
		io.WriteString(conn, "GET /status HTTP/1.1\r\nHost: daemon\r\n")
		line, sent := []byte("X-A: "+strings.Repeat("a", 1000)+"\r\n"), 0
		for ; err == nil && sent < 1<<30; sent += len(line) {
			_, err = conn.Write(line)
		}
		headers <- sent
	}()
	version := 1
	for over := false; !over; {
		select {
		case err := <-flooded:
			w.Must(err)
			over = true
		default:
		}
		most = max(most, descriptors())
		w.Eventually("status is answered", func() bool { // whoever asks waits for its turn, which the command does for 10 s
			stdout, _, _ := w.RunCommand("status")
			return strings.Contains(stdout, "prod")
		})
		w.Blank("prod")
		w.OnDisk("prod", secret)
		if version < 3 {
			version, secret = w.NewSecret("prod")
			w.Applied("prod", version)
		}
	}
	if sent := <-headers; sent < 0 || sent > 1<<20 {
		t.Errorf("%d bytes of headers were taken", sent)
	}
	t.Logf("the daemon had %d descriptors before and at most %d, and at most %d MiB of memory", before, most, peak(w)>>10)
	if most > before+40 { // 16, and what the work opens
		t.Errorf("the daemon had %d descriptors, and %d before", most, before)
	}
	if mib := peak(w) >> 10; mib > 512 {
		t.Errorf("the daemon took %d MiB", mib)
	}
	w.InSync(version)
	w.Exits(0, "prod", "status")
}

// dialled connects to a socket, also while the kernel's queue of it is full.
func dialled(path string) (net.Conn, error) {
	for deadline := time.Now().Add(world.Patience); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return conn, err
		}
	}
}

// peak is the most memory that the daemon had, in KiB.
func peak(w *world.World) (kib int) {
	w.T.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.Running.PID()))
	w.Must(err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		w.T.Fatal(err)
	}
	return kib
}
