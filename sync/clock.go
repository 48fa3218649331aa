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
	if step.Abs() <= clockSlack {
		return
	}
	d.log.Info("the clock was set, or the machine was suspended", "duration", step.Round(time.Millisecond))
	d.verifyAt, d.reapplyAt = now, earlier(d.reapplyAt, nextTick(d.cfg.Reapply, now))
	for _, in := range d.instances {
		in.file.touched(true, now)
	}
	d.wakeAll()
}

// tick takes the schedules, and times that a clock was set back behind.
func (d *Daemon) tick(now time.Time) (again time.Time) {
	for _, in := range d.instances {
		if r := &in.record; len(r.Activation) > 0 && r.ActivationSince.Round(0).After(now.Round(0)) {
			r.ActivationSince = now
			r.unsaved = true
			d.wake(in)
		}
	}
	if isTime(d.verifyAt, now) {
		d.verifyAt = nextTick(d.cfg.Verify, now)
		d.pollSoon(now)
		for _, in := range d.instances {
			in.file.stale, in.file.cannotSplice = true, false
		}
		d.wakeAll()
	}
	if isTime(d.reapplyAt, now) {
		d.reapplyAt = nextTick(d.cfg.Reapply, now)
		d.pollSoon(now)
		for _, in := range d.instances {
			if !in.isSetByOthers() {
				in.wanted.force = forSchedule
			}
		}
		d.wakeAll()
	}
	return earlier(d.endPauses(now), earlier(d.verifyAt, d.reapplyAt))
}

// isTime reports whether at has come; zero never does.
func isTime(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

func nextTick(schedule cron.Schedule, now time.Time) time.Time {
	if schedule == nil {
		return time.Time{}
	}
	return schedule.Next(now)
}
