package sync

import (
	"context"
	"time"
)

// CheckSoon begins a full check of every instance.
func (d *Daemon) CheckSoon() {
	d.lock.take()
	defer d.unlock()
	d.beginCheck(d.instances, time.Now())
}

// Ping returns when a decision could be made: proof that the Daemon is alive.
func (d *Daemon) Ping(ctx context.Context) error {
	err := d.lock.takeUntil(ctx)
	if err == nil {
		d.unlock()
	}
	return err
}

// beginCheck has instances checked, whatever waits for a retry.
func (d *Daemon) beginCheck(checked []*instance, now time.Time) {
	for _, in := range checked {
		in.file.stale, in.file.cannotSplice = true, false
		d.pollNow(in.source, now)
		for _, r := range []*retry{&in.record.retry, &in.file.recovery, &in.file.restore, &in.wanted.retry, &in.probe.retry, &in.activation.retry} {
			r.at = time.Time{}
		}
	}
	d.wake(checked...)
}

// await waits until the check of instances is over: for each by itself, as one of many sources is being polled at any time.
func (d *Daemon) await(ctx context.Context, checked []*instance) error {
	left := len(checked)
	for _, in := range checked {
		d.spawn(func() {
			for !d.isChecked(in, time.Now()) && d.phase < ended && ctx.Err() == nil {
				d.wait(time.Time{}, &in.news, ctx.Done())
			}
			left--
		})
	}
	for left > 0 {
		d.wait(time.Time{}, &d.some, nil)
	}
	if d.phase >= ended {
		return ErrEnded
	}
	return ctx.Err()
}

// isChecked reports whether nothing more comes of a check of an instance now. Whatever that depends on wakes the instance.
func (d *Daemon) isChecked(in *instance, now time.Time) bool {
	idle := in.busy == actionNone && d.plan(in, now).action == actionNone
	polled := in.source.cut == nil && now.Before(in.source.next)
	saved := !in.record.saving && (!in.record.unsaved || !in.record.retry.due(now))
	editing := in.file.err != nil && !in.file.unusable() // an editor may be at work
	switch {
	case d.phase > working: // what is to be done may not be begun; a drain that fails has all asked again
		return false
	case in.file.recovery.isFailing() && idle, in.hung() != nil:
		return true
	case !idle || !polled || !saved || editing || d.isAsking(in, now):
		return false
	case d.activating != nil && d.activating.hangs: // nothing is activated, nor applied, until it ends
		return true
	case d.activating != nil && in.isToApply():
		return false
	}
	return len(in.record.Activation) == 0 || !d.mayRun(in, now) || now.Before(d.activationAt(in))
}
