// Package systemd sends the service manager what it wants to know: ready, reloading, stopping, alive, and the status in one line.
// Without a manager it sends nothing.
package systemd

import (
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
)

// Service sends messages to systemd. No method waits longer than sendTimeout for a manager that does not read. They may be called
// concurrently.
type Service struct {
	watchdog time.Duration // between two messages of it; 0: not wanted
	changed  chan struct{} // 1 slot: the status may have

	mu        sync.Mutex // held while READY, RELOADING or STOPPING is sent, so that their order is kept
	owesReady bool       // READY=1 was not taken
}

const (
	sendTimeout = 200 * time.Millisecond
	sendAgain   = time.Second            // until a message that was not taken is sent again
	statusRest  = 100 * time.Millisecond // from a change to a look at the status, which takes longer the more instances there are
)

// New returns the service of this process.
func New() *Service {
	s := &Service{changed: make(chan struct{}, 1)}
	// The watchdog is for the main process alone; one that inherited the variables has another process id.
	if limit, err := sdnotify.SdWatchdogEnabled(false); err == nil && limit > 0 {
		s.watchdog = limit / 3
	}
	return s
}

// notify sends one datagram, and reports whether it was taken, or there is no manager. SdNotify of the library would wait for ever for
// a manager that does not read.
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

// Changed has Watch look at the status. It never blocks.
func (s *Service) Changed() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Watch sends, until ctx ends, that the daemon is ready (when that channel is closed), its status, and that it is alive (as long as
// ping returns nil).
func (s *Service) Watch(ctx context.Context, ready <-chan struct{}, ping func(context.Context) error, status func() string) {
	var beats <-chan time.Time // never, without a watchdog
	if s.watchdog > 0 {
		ticker := time.NewTicker(s.watchdog)
		defer ticker.Stop()
		beats = ticker.C
	}
	var shown string
	show := func() bool {
		line := status()
		if line != shown && !notify("STATUS="+line) {
			return false
		}
		shown = line
		return true
	}
	look, changed := time.After(0), (<-chan struct{})(nil)
	for {
		// From the start, as the first check may take longer than the watchdog waits.
		if s.watchdog > 0 && ping(ctx) == nil {
			notify(sdnotify.SdNotifyWatchdog)
		}
		var again <-chan time.Time
		if !s.repeatReady() {
			again = time.After(sendAgain)
		}
		select {
		case <-ready:
			show() // before whoever waits for the start goes on
			s.send(true, sdnotify.SdNotifyReady)
			ready = nil
		case <-beats:
		case <-changed:
			look, changed = time.After(statusRest), nil
		case <-look:
			if look, changed = nil, s.changed; !show() {
				look = time.After(sendAgain)
			}
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// Reloading says that a reload has begun. The READY=1 of the next Watch, or ReloadRefused, ends it. The time has to be in the same
// datagram.
func (s *Service) Reloading() {
	s.send(false, sdnotify.SdNotifyReloading, sdnotify.SdNotifyMonotonicUsec())
}

// ReloadRefused says that the daemon goes on as before.
func (s *Service) ReloadRefused() { s.send(true, sdnotify.SdNotifyReady) }

// Stopping says that the daemon is about to end.
func (s *Service) Stopping() { s.send(false, sdnotify.SdNotifyStopping) }

// send sends a message once. READY=1 is repeated until it is taken: without it a unit of type notify never counts as started or
// reloaded.
func (s *Service) send(isReady bool, lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owesReady = !notify(lines...) && isReady
}

// repeatReady reports whether READY=1 is taken now, or was not to be sent.
func (s *Service) repeatReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owesReady = s.owesReady && !notify(sdnotify.SdNotifyReady)
	return !s.owesReady
}
