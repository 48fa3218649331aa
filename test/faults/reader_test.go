package faults_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
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
			more := 20
			if comesBack || *full {
				more = 500 // a revert has at least three lines
			}
			for range more {
				revert()
			}
			w.AwaitStatus("every revert is counted", func(s container.Status) bool {
				return world.One(s, "prod").RevertedTotal >= reverts && s.Applied(1)
			})

			var log bytes.Buffer
			ended := make(chan struct{})
			close(ended)
			if comesBack {
				ended = make(chan struct{})
				told := make(chan struct{})
				go func() {
					defer close(ended)
					part := make([]byte, 4096)
					for {
						n, err := r.Read(part)
						had := bytes.Contains(log.Bytes(), []byte("log lines were lost"))
						log.Write(part[:n])
						if !had && bytes.Contains(log.Bytes(), []byte("log lines were lost")) {
							close(told)
						}
						if err != nil {
							return
						}
					}
				}()
				select {
				case <-told:
				case <-time.After(world.Patience):
					t.Error("it does not tell that lines were lost")
				}
			}
			w.Must(d.Signal(syscall.SIGTERM))
			state := ends(w, d)
			if state.ExitCode() != 0 {
				t.Errorf("the daemon ended with %v", state)
			}
			<-ended
			rest, err := io.ReadAll(r)
			w.Must(err)
			log.Write(rest)
			w.Printed.Write(log.Bytes()) // for the common questions
			if comesBack && !strings.HasSuffix(strings.TrimSpace(log.String()), "msg=stopped") {
				t.Errorf("the last line is lost: %q", log.String()[max(0, log.Len()-300):])
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
