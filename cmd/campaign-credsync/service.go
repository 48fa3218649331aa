package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// service speaks to systemd, or to nobody where there is none. Nothing in it waits for a manager that does not read for
// longer than notifyPatience, and show, which the loop calls, not at all.
type service struct {
	beat    time.Duration          // between two signs of life; 0 = none wanted
	line    atomic.Pointer[string] // newest status
	changed chan struct{}          // 1 slot: there is a newer one

	mu        sync.Mutex // while it tells what the daemon is about, so that nothing overtakes
	owesReady bool       // READY=1 was not taken
}

const (
	notifyPatience = 200 * time.Millisecond
	notifyAgain    = time.Second // after which what was not taken is told again
)

func newService(env func(string) (string, bool)) *service {
	s := &service{changed: make(chan struct{}, 1)}
	// The watchdog is for the main process alone; one that inherited the variables has another process id.
	if limit, err := systemd.SdWatchdogEnabled(false); err == nil && limit > 0 {
		s.beat = limit / 3
	}
	return s
}

// notify sends one datagram, and reports whether it was taken, or nobody wants any. SdNotify would wait for ever where
// nobody reads.
func notify(lines ...string) bool {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return true
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(notifyPatience))
	_, err = conn.Write([]byte(strings.Join(lines, "\n")))
	return err == nil
}

// show has watch tell systemctl status how it is.
func (s *service) show(status credsync.Status) {
	line := summary(status)
	if old := s.line.Swap(&line); old != nil && *old == line {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// maxSummary is far below what systemd takes in one datagram (4096 bytes; a larger one it ignores), maxReason what one reason may have
// of it. In bytes.
const (
	maxSummary = 2000
	maxReason  = 400
)

// summary is one line: how many instances are in sync, then the others by what is wrong with them, as far as there is room.
func summary(status credsync.Status) string {
	type trouble struct {
		text  string
		names []string
	}
	var troubles []*trouble
	wrong := 0
	for _, in := range status.Instances {
		if in.State == credsync.StateInSync {
			continue
		}
		wrong++
		text := string(in.State)
		if in.LastError != "" {
			text += " (" + credential.Cut(in.LastError, maxReason) + ")"
		}
		i := slices.IndexFunc(troubles, func(t *trouble) bool { return t.text == text })
		if i < 0 {
			i = len(troubles)
			troubles = append(troubles, &trouble{text: text})
		}
		troubles[i].names = append(troubles[i].names, in.Name)
	}
	line := fmt.Sprintf("%d of %d instances in sync", len(status.Instances)-wrong, len(status.Instances))
	told := 0
	for _, t := range troubles {
		next := "; " + credential.List(t.names) + ": " + t.text
		if len(line)+len(next) > maxSummary {
			return line + fmt.Sprintf("; … and %d more", wrong-told)
		}
		line += next
		told += len(t.names)
	}
	return line
}

// watch tells that the daemon is ready once its first full check is over, how it is, and that the loop is alive as long as
// it takes its turns.
func (s *service) watch(ctx context.Context, daemon *credsync.Daemon) {
	ready := daemon.Ready()
	var beats <-chan time.Time // never, without a watchdog
	if s.beat > 0 {
		ticker := time.NewTicker(s.beat)
		defer ticker.Stop()
		beats = ticker.C
	}
	var shown string
	for {
		// The first check may take longer than the watchdog waits, so it is fed from the start.
		if s.beat > 0 && daemon.Ping(ctx) == nil {
			notify(systemd.SdNotifyWatchdog)
		}
		var again <-chan time.Time
		if !s.repeatReady() {
			again = time.After(notifyAgain)
		}
		if line := s.line.Load(); line != nil && *line != shown {
			if notify("STATUS=" + *line) {
				shown = *line
			} else {
				again = time.After(notifyAgain)
			}
		}
		select {
		case <-ready:
			s.ready()
			ready = nil
		case <-beats:
		case <-s.changed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// ready is told until it is taken: without it a unit of type notify is never up, or never reloaded.
func (s *service) ready() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owesReady = !notify(systemd.SdNotifyReady)
}

func (s *service) repeatReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owesReady {
		s.owesReady = !notify(systemd.SdNotifyReady)
	}
	return !s.owesReady
}

// reloading starts what the READY=1 of the next assembly, or reloadRefused, ends. The time has to be in the same
// datagram.
func (s *service) reloading() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owesReady = false
	notify(systemd.SdNotifyReloading, systemd.SdNotifyMonotonicUsec())
}

func (s *service) reloadRefused() { s.ready() }

func (s *service) stopping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owesReady = false
	notify(systemd.SdNotifyStopping)
}
