package sync

import (
	"context"
	"slices"
	"time"
)

// CheckSoon begins a full check of every instance.
func (d *Daemon) CheckSoon() {
	d.lock.take()
	defer d.unlock()
	d.beginCheck(nil, time.Now())
}

// Ping returns when a decision could be made: proof that the Daemon is alive.
func (d *Daemon) Ping(ctx context.Context) error {
	err := d.lock.takeUntil(ctx)
	if err == nil {
		d.unlock()
	}
	return err
}

// beginCheck has the named instances (none = all) checked, whatever waits for a retry, and returns them.
func (d *Daemon) beginCheck(names []string, now time.Time) (checked []*instance) {
	for _, in := range d.instances {
		if len(names) == 0 || slices.Contains(names, in.Name) {
			checked = append(checked, in)
			in.file.stale, in.file.cannotSplice = true, false
			in.source.pollNow(now)
			for _, r := range []*retry{&in.record.retry, &in.file.recovery, &in.file.restore, &in.wanted.retry, &in.probe.retry, &in.activation.retry} {
				r.at = time.Time{}
			}
		}
	}
	d.wakeAll()
	return checked
}

// await waits until the check of instances is over: for each by itself, as one of many sources is being polled at any time.
func (d *Daemon) await(ctx context.Context, checked []*instance) error {
	for {
		now := time.Now()
		checked = slices.DeleteFunc(checked, func(in *instance) bool { return d.isChecked(in, now) })
		switch {
		case d.phase >= ended:
			return ErrEnded
		case len(checked) == 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		d.wait(time.Time{}, ctx.Done())
	}
}

// isChecked reports whether nothing more comes of a check of an instance now.
func (d *Daemon) isChecked(in *instance, now time.Time) bool {
	idle := in.busy == actionNone && d.plan(in, now).action == actionNone
	polled := in.source.cut == nil && now.Before(in.source.next)
	saved := !in.record.saving && (!in.record.unsaved || !in.record.retry.due(now))
	editing := in.file.err != nil && !in.file.unusable() // an editor may be at work
	switch {
	case in.file.recovery.isFailing() && idle, d.hung(in) != nil:
		return true
	case !idle || !polled || !saved || editing || d.isAsking(in, now):
		return false
	case d.activating:
		return slices.ContainsFunc(d.underWay, func(s *step) bool { return s.hangs && s.commands })
	}
	return len(in.record.Activation) == 0 || !d.mayRun(in, now) || now.Before(d.activationAt(in))
}
