package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"campaign-credsync/sync"
)

// service speaks to systemd, or to nobody where there is none. show is called by the loop and the rest by the daemon's
// own goroutine and one that watches, so nothing in it is changed by more than one of them.
type service struct {
	beat    time.Duration // between two signs of life; 0 = none wanted
	reloads int
	shown   string // by show only
}

func newService(env func(string) (string, bool)) *service {
	s := &service{}
	// The watchdog is for the main process alone; one that inherited the variables has another process id.
	if limit, err := systemd.SdWatchdogEnabled(false); err == nil && limit > 0 {
		s.beat = limit / 3
	}
	return s
}

// notify ignores errors: that nobody listens is no reason to stop keeping credentials right.
func notify(lines ...string) { systemd.SdNotify(false, strings.Join(lines, "\n")) }

// show tells systemctl status how it is.
func (s *service) show(status sync.Status) {
	line := summary(status)
	if line == s.shown {
		return
	}
	s.shown = line
	notify("STATUS=" + line)
}

// summary is one line: the instances that are not in sync with their reason, else that all are.
func summary(status sync.Status) string {
	var wrong []string
	for _, in := range status.Instances {
		if in.State == sync.StateInSync {
			continue
		}
		text := in.Name + ": " + string(in.State)
		if in.LastError != "" {
			text += " (" + in.LastError + ")"
		}
		wrong = append(wrong, text)
	}
	if len(wrong) == 0 {
		return fmt.Sprintf("%d of %d instances in sync", len(status.Instances), len(status.Instances))
	}
	return fmt.Sprintf("%d of %d instances in sync; %s", len(status.Instances)-len(wrong), len(status.Instances), strings.Join(wrong, "; "))
}

// watch tells that the daemon is ready once its first full check is over, and then that the loop is alive as long as it
// takes its turns.
func (s *service) watch(ctx context.Context, daemon *sync.Daemon) {
	ready := daemon.Ready()
	var beats <-chan time.Time // never, without a watchdog
	if s.beat > 0 {
		ticker := time.NewTicker(s.beat)
		defer ticker.Stop()
		beats = ticker.C
	}
	for {
		// The first check may take longer than the watchdog waits, so it is fed from the start.
		if s.beat > 0 && daemon.Ping(ctx) == nil {
			notify(systemd.SdNotifyWatchdog)
		}
		select {
		case <-ready:
			notify(systemd.SdNotifyReady)
			ready = nil
		case <-beats:
		case <-ctx.Done():
			return
		}
	}
}

// reloading starts what the READY=1 of the next assembly, or reloadRefused, ends. The time has to be in the same
// datagram.
func (s *service) reloading() {
	s.reloads++
	notify(systemd.SdNotifyReloading, systemd.SdNotifyMonotonicUsec())
}

func (s *service) reloadRefused() { notify(systemd.SdNotifyReady) }

func (s *service) stopping() { notify(systemd.SdNotifyStopping) }
