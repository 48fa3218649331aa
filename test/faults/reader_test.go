package faults_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// Whoever reads the log is there and does not read, as a journal that is stopped: the pipe is full, and so is what the daemon keeps.
func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	for _, comesBack := range []bool{false, true} {
		name := map[bool]string{false: "stays away", true: "comes back"}[comesBack]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{Settings: "drift: {max_reverts: 10000}"})
			w.Stop()
			r, pipe, err := os.Pipe()
			w.Must(err)
			defer r.Close()
			capacity, err := unix.FcntlInt(pipe.Fd(), unix.F_SETPIPE_SZ, 4096) // a whole one takes longer to fill, that is all
			w.Must(err)
			d := w.StartWriting(pipe)
			pipe.Close()
			w.InSync(1)
			reverts := 0
			revert := func() {
				w.Blank("prod")
				w.OnDisk("prod", secrets["prod"])
				reverts++
			}
			for last := -1; ; { // a line that has no room is not begun
				revert()
				filled, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
				w.Must(err)
				if filled == last && filled > capacity/2 {
					break
				}
				last = filled
			}
			more, overflows := 30, comesBack && *full
			if overflows {
				more = 1100 // a line each, and 1,024 are kept
			}
			for range more {
				revert()
			}
			w.AwaitStatus("every revert is counted", func(s container.Status) bool {
				return world.One(s, "prod").RevertedTotal >= reverts && s.Applied(1)
			})

			var log []byte
			ended := make(chan error, 1)
			read := func() {
				var err error
				log, err = io.ReadAll(r)
				ended <- err
			}
			if comesBack {
				go read()
				w.Eventually("the pipe is empty", func() bool {
					filled, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
					return err == nil && filled == 0
				})
			}
			w.Must(d.Signal(syscall.SIGTERM))
			if state := ends(w, d); state.ExitCode() != 0 {
				t.Errorf("the daemon ended with %v", state)
			}
			if !comesBack {
				go read()
			}
			w.Must(<-ended)
			w.Printed.Write(log) // for the common questions
			if comesBack && !bytes.HasSuffix(log, []byte("msg=stopped\n")) {
				t.Errorf("the last line is lost: %q", log[max(0, len(log)-300):])
			}
			if lost := bytes.Contains(log, []byte(`msg="log lines were lost" count=`)); lost != overflows {
				t.Errorf("lines were lost: %v, want %v", lost, overflows)
			}
			if lines := bytes.Count(log, []byte("drift reverted")); comesBack && !overflows && lines != reverts {
				t.Errorf("%d lines for %d reverts", lines, reverts)
			}
		})
	}
}

// ends waits for a daemon that the test started itself.
func ends(w *world.World, d *os.Process) *os.ProcessState {
	w.T.Helper()
	over := time.AfterFunc(world.Patience, func() { d.Kill() })
	defer over.Stop()
	state, err := d.Wait()
	w.Must(err)
	return state
}

// The manager is there and does not read, as systemd while it is stopped: its queue is full from the start.
func TestNotifySocketThatNobodyReads(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	_, secret := w.NewSecret("prod")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.Path("notify"), Net: "unixgram"})
	w.Must(err)
	defer manager.Close()
	filler, err := net.DialUnix("unixgram", nil, manager.LocalAddr().(*net.UnixAddr))
	w.Must(err)
	defer filler.Close()
	for err == nil {
		filler.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = filler.Write([]byte("filler"))
	}

	c := exec.Command(w.Daemon(), "--config", w.Config, "run")
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+w.Path("notify"), "WATCHDOG_USEC=300000")
	c.Stdout, c.Stderr = &w.Printed, &w.Printed
	w.Must(c.Start())
	t.Cleanup(func() { c.Process.Kill() })
	w.InSync(1)
	good := w.Read("prod")
	for range 3 { // each is two other lines of systemctl status
		w.Must(os.WriteFile(w.File("prod"), nil, 0o640))
		w.Is("prod", "degraded")
		w.Must(os.WriteFile(w.File("prod"), good, 0o640))
		w.Blank("prod")
		w.OnDisk("prod", secret)
		w.InSync(1)
	}

	w.Must(manager.SetReadDeadline(time.Now().Add(world.Patience)))
	buffer := make([]byte, 64<<10)
	var ready, status, alive bool
	for !ready || !status || !alive {
		n, err := manager.Read(buffer)
		if err != nil {
			t.Fatalf("heard READY=1: %v, STATUS=: %v, WATCHDOG=1: %v, then %v", ready, status, alive, err)
		}
		text := string(buffer[:n])
		ready = ready || text == "READY=1"
		status = status || text == "STATUS=1 of 1 instances in sync"
		alive = alive || text == "WATCHDOG=1"
	}
	w.Must(c.Process.Signal(syscall.SIGTERM))
	over := time.AfterFunc(world.Patience, func() { c.Process.Kill() })
	defer over.Stop()
	w.Must(c.Wait())
}
