package sync

import (
	"time"

	"github.com/robfig/cron/v3"
)

const (
	// longestRest is how long anybody waits at most: a timer counts the time that the machine runs, and knows nothing of a clock that
	// was set, or of a suspended machine.
	longestRest = time.Minute
	// clockSlack is by how much the clock may have been set without making change times useless.
	clockSlack = 500 * time.Millisecond
)

// checkClock computes anew what a clock that was set has made wrong: times of schedules, which may be a year away now.
func (d *Daemon) checkClock(now time.Time) {
	step := now.Round(0).Sub(d.seenAt.Round(0)) - now.Sub(d.seenAt) // by the wall clock, and by the one that only runs
	d.seenAt = now
	moved := step.Abs() > clockSlack
	if moved {
		d.log.Info("the clock was set, or the machine was suspended", "duration", step.Round(time.Millisecond))
		d.verifyAt, d.reapplyAt = now, earlier(d.reapplyAt, nextTick(d.cfg.Reapply, now))
		d.tell()
	}
	for _, in := range d.instances {
		if moved {
			in.file.touched(true, now)
		}
		if r := &in.record; len(r.Activation) > 0 && r.ActivationSince.Round(0).After(now.Round(0)) {
			r.ActivationSince = now
			r.changed(now)
		}
	}
}

// tick takes the schedules.
func (d *Daemon) tick(now time.Time) (again time.Time) {
	verify, reapply := isTime(d.verifyAt, now), isTime(d.reapplyAt, now)
	if verify || reapply {
		d.pollSoon(now)
		d.tell()
	}
	for _, in := range d.instances {
		if verify {
			in.file.stale, in.file.cannotSplice = true, false
		}
		if reapply {
			in.wanted.reason = forSchedule
		}
	}
	if verify {
		d.verifyAt = nextTick(d.cfg.Verify, now)
	}
	if reapply {
		d.reapplyAt = nextTick(d.cfg.Reapply, now)
	}
	return earlier(d.verifyAt, d.reapplyAt)
}

// isTime reports whether at has come; zero never does.
func isTime(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

func nextTick(schedule cron.Schedule, now time.Time) time.Time {
	if schedule == nil {
		return time.Time{}
	}
	return schedule.Next(now)
}
