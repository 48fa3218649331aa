// Package systemd tells the service manager how the daemon is: ready, reloading, stopping, alive, and its status in one line. Without a
// manager it tells nobody.
package systemd

import (
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
)

// Service speaks to systemd. No method waits longer than sendTimeout for a manager that does not read. They may be called
// concurrently.
type Service struct {
	beat    time.Duration          // between two signs of life; 0 = none wanted
	status  atomic.Pointer[string] // newest status
	changed chan struct{}          // 1 slot: there is a newer one

	mu        sync.Mutex // while it tells what the daemon is about, so that nothing overtakes
	owesReady bool       // READY=1 was not taken
}

const (
	sendTimeout = 200 * time.Millisecond
	sendAgain   = time.Second // after which what was not taken is told again
)

// New returns the service of this process.
func New() *Service {
	s := &Service{changed: make(chan struct{}, 1)}
	// The watchdog is for the main process alone; one that inherited the variables has another process id.
	if limit, err := sdnotify.SdWatchdogEnabled(false); err == nil && limit > 0 {
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
	conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	_, err = conn.Write([]byte(strings.Join(lines, "\n")))
	return err == nil
}

// Show has Watch tell systemctl status how the daemon is. It never blocks.
func (s *Service) Show(status string) {
	if old := s.status.Swap(&status); old != nil && *old == status {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Watch tells until ctx ends that the daemon is ready, once that is closed, its status, and that it is alive, as long as ping
// returns nil.
func (s *Service) Watch(ctx context.Context, ready <-chan struct{}, ping func(context.Context) error) {
	var beats <-chan time.Time // never, without a watchdog
	if s.beat > 0 {
		ticker := time.NewTicker(s.beat)
		defer ticker.Stop()
		beats = ticker.C
	}
	var shown string
	for {
		// The first check may take longer than the watchdog waits, so it is fed from the start.
		if s.beat > 0 && ping(ctx) == nil {
			notify(sdnotify.SdNotifyWatchdog)
		}
		var again <-chan time.Time
		if !s.repeatReady() {
			again = time.After(sendAgain)
		}
		if line := s.status.Load(); line != nil && *line != shown {
			if notify("STATUS=" + *line) {
				shown = *line
			} else {
				again = time.After(sendAgain)
			}
		}
		select {
		case <-ready:
			s.sendReady()
			ready = nil
		case <-beats:
		case <-s.changed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// sendReady is repeated until the message is taken: without it a unit of type notify is never up, or never reloaded.
func (s *Service) sendReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owesReady = !notify(sdnotify.SdNotifyReady)
}

func (s *Service) repeatReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owesReady {
		s.owesReady = !notify(sdnotify.SdNotifyReady)
	}
	return !s.owesReady
}

// Reloading starts what the READY=1 of the next Watch, or ReloadRefused, ends. The time has to be in the same datagram.
func (s *Service) Reloading() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owesReady = false
	notify(sdnotify.SdNotifyReloading, sdnotify.SdNotifyMonotonicUsec())
}

// ReloadRefused says that the daemon goes on as before.
func (s *Service) ReloadRefused() { s.sendReady() }

// Stopping says that the daemon is about to end.
func (s *Service) Stopping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owesReady = false
	notify(sdnotify.SdNotifyStopping)
}
