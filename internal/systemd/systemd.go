// Package systemd sends the service manager what it wants to know: ready, reloading, stopping, alive, and the status in one line.
// Without a manager it sends nothing.
package systemd

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
)

// Service sends messages to systemd. Its methods may be called concurrently. None waits longer than sendTimeout for a manager that does
// not read.
type Service struct {
	watchdog time.Duration // between two messages of it; 0: not wanted
	// The newest message that Watch has not sent.
	state, status atomic.Pointer[string]
	changed       chan struct{} // 1 slot: there is a newer one
}

const (
	sendTimeout = 200 * time.Millisecond
	sendAgain   = time.Second // until a message that was not taken is sent again
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
func notify(message string) bool {
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
	_, err = conn.Write([]byte(message))
	return err == nil
}

// Show has Watch send the status that systemctl shows. It never waits.
func (s *Service) Show(status string) { s.send(&s.status, "STATUS="+status) }

// Reloading says that a reload has begun. The READY=1 of the next Watch, or ReloadRefused, ends it. The time has to be in the same
// datagram.
func (s *Service) Reloading() {
	s.state.Store(nil) // a READY=1 from before would end it
	notify(sdnotify.SdNotifyReloading + "\n" + sdnotify.SdNotifyMonotonicUsec())
}

// ReloadRefused says that the daemon goes on as before.
func (s *Service) ReloadRefused() { s.send(&s.state, sdnotify.SdNotifyReady) }

// Stopping says that the daemon is about to end.
func (s *Service) Stopping() { notify(sdnotify.SdNotifyStopping) }

// send has Watch send a message instead of what waits for that.
func (s *Service) send(waiting *atomic.Pointer[string], message string) {
	waiting.Store(&message)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Watch sends, until ctx ends, that the daemon is ready (when that channel is closed), what else is to be sent, and that it is alive
// (as long as ping returns nil). A message is repeated until it is taken or there is a newer one: without READY=1 a unit of type notify
// never counts as started or reloaded.
func (s *Service) Watch(ctx context.Context, ready <-chan struct{}, ping func(context.Context) error) {
	var beats <-chan time.Time // never, without a watchdog
	if s.watchdog > 0 {
		ticker := time.NewTicker(s.watchdog)
		defer ticker.Stop()
		beats = ticker.C
	}
	var shown string
	for {
		// From the start, as the first check may take longer than the watchdog waits.
		if s.watchdog > 0 && ping(ctx) == nil {
			notify(sdnotify.SdNotifyWatchdog)
		}
		var again <-chan time.Time
		for _, waiting := range []*atomic.Pointer[string]{&s.state, &s.status} {
			message := waiting.Swap(nil)
			if message == nil || *message == shown {
				continue
			}
			if !notify(*message) {
				waiting.CompareAndSwap(nil, message)
				again = time.After(sendAgain)
			} else if waiting == &s.status {
				shown = *message
			}
		}
		select {
		case <-ready:
			s.send(&s.state, sdnotify.SdNotifyReady)
			ready = nil
		case <-beats:
		case <-s.changed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}
