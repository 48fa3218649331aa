package sync

import (
	"time"

	"campaign-credsync/sync/event"
)

func (d *Daemon) endPause(in *instance, by *int, why string, now time.Time) {
	if in.record.Paused == nil {
		return
	}
	in.record.Paused, in.record.unsaved = nil, true
	in.probe.since = time.Time{} // nobody was asked meanwhile
	in.file.touched(true, now)
	in.file.rightAt = time.Time{} // drift with a pause in between counts as old, until the file is seen right again
	in.log.Info("the pause is over", "reason", why)
	d.emit(in, event.Event{Kind: event.Resumed, ByUID: by, Text: why})
	d.wake(in)
}

// isPaused reports whether an operator has the daemon write nothing. The pause ends when either clock says so: the one that is set, and the
// one that only runs, but stands still while the machine is suspended.
func (in *instance) isPaused(now time.Time) bool {
	p := in.record.Paused
	return p != nil && now.Before(p.Until) && now.Round(0).Before(p.Until.Round(0))
}

// restorePause takes a pause that was read from disk: it lasts no longer than it was asked for, whatever became of the clock.
func (in *instance) restorePause(now time.Time) {
	if p := in.record.Paused; p != nil {
		pause := *p
		pause.Until = now.Add(min(p.Until.Sub(now), p.Until.Sub(p.Since)))
		in.record.Paused = &pause
	}
}

// endPauses ends those that are over, and tells when the next one is.
func (d *Daemon) endPauses(now time.Time) (next time.Time) {
	for _, in := range d.instances {
		switch p := in.record.Paused; {
		case p == nil:
		case in.isPaused(now):
			next = earlier(next, p.Until)
		default:
			d.endPause(in, nil, "its time is over", now)
		}
	}
	return next
}
