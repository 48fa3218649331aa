package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// drainGrace is how long polls that were cut short, and what is done with files, may take to end.
const drainGrace = 6 * time.Second

// ErrEnded says that Run has returned, or is about to.
var ErrEnded = errors.New("the daemon is stopping")

// Check runs a full check of the named instances (none = all) now, retrying at once whatever waits for a retry, and returns the status
// after it: each instance was looked at, its source polled, and everything that could be done at once was done or has failed.
func (d *Daemon) Check(ctx context.Context, names ...string) (Status, error) {
	for _, name := range names {
		if !slices.ContainsFunc(d.instances, func(in *instance) bool { return in.Name == name }) {
			return Status{}, fmt.Errorf("no instance is called %q", name)
		}
	}
	if err := d.lock.takeUntil(ctx); err != nil {
		return Status{}, err
	}
	err := d.await(ctx, d.beginCheck(names, time.Now()))
	d.unlock()
	return d.Status(), err
}

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
			for _, r := range []*retry{&in.record.retry, &in.file.recovery, &in.file.restore, &in.wanted.retry, &in.activation.retry} {
				r.at = time.Time{}
			}
		}
	}
	d.tell()
	return checked
}

// await waits until the check of instances is over: for each by itself, as one of many sources is being polled at any time.
func (d *Daemon) await(ctx context.Context, checked []*instance) error {
	for {
		now := time.Now()
		checked = slices.DeleteFunc(checked, func(in *instance) bool { return d.isChecked(in, now) })
		switch {
		case d.ended:
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
	case !idle || !polled || !saved || editing:
		return false
	case d.activating:
		return slices.ContainsFunc(d.underWay, func(s *step) bool { return s.hangs && s.commands })
	}
	return len(in.record.Activation) == 0 || now.Before(d.activationAt(in))
}

// Drain is for a Daemon that is to be stopped and replaced by another in this process. It has no command and no poll begun any more and
// cuts polls short. Files are guarded until what is under way of these has ended; then nothing is begun any more. It returns when nothing
// runs. When something does not end, Run goes on as before, and the error says so.
func (d *Daemon) Drain() error {
	d.lock.take()
	defer d.unlock()
	d.draining = true
	d.cutPolls()
	since := time.Now() // or while a command ran last
	for len(d.underWay) > 0 && !d.ended {
		now := time.Now()
		if d.commandStep() {
			since = now
		}
		hanging := slices.IndexFunc(d.underWay, func(s *step) bool { return s.hangs })
		if hanging >= 0 || now.Sub(since) >= drainGrace {
			s := d.underWay[max(0, hanging)] // the oldest, if none hangs
			d.draining = false
			d.tell()
			return fmt.Errorf("instance %s: %v", s.names(), s)
		}
		d.wait(now.Add(drainGrace/10), nil)
	}
	if d.ended {
		return ErrEnded
	}
	return nil
}

func (d *Daemon) cutPolls() {
	for _, w := range d.sources {
		if w.cut != nil {
			w.cut()
		}
	}
}

// mayGuard reports whether steps on files and records may begin.
func (d *Daemon) mayGuard() bool {
	return !d.draining || d.commandStep() || slices.ContainsFunc(d.sources, func(w *source) bool { return w.cut != nil })
}
