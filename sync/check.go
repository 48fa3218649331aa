package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// target is what an instance must have reached for a check to be over.
type target struct {
	in           *instance
	looks, polls int
}

// ErrEnded says that Run has returned, or is about to.
var ErrEnded = errors.New("the daemon is stopping")

// Check runs a full check of the named instances (none = all) now, retrying at once whatever waits for a retry, and returns the status
// after it: each instance was looked at, its source polled, and everything that could be done at once was done or has failed.
func (d *Daemon) Check(ctx context.Context, names ...string) (Status, error) {
	for _, name := range names {
		if d.find(name) == nil {
			return Status{}, fmt.Errorf("no instance is called %q", name)
		}
	}
	d.lock.take()
	err := ErrEnded
	if !d.ended {
		err = d.await(ctx, d.beginCheck(names, time.Now()))
	}
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
	select {
	case d.lock <- struct{}{}:
		d.unlock()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Daemon) beginCheck(names []string, now time.Time) (targets []target) {
	for _, in := range d.instances {
		if len(names) > 0 && !slices.Contains(names, in.Name) {
			continue
		}
		t := target{in, in.file.looks + 1, in.source.polls + 1}
		if in.busy == actionLook || in.busy == actionRestore {
			t.looks++ // the one under way began before it was asked for
		}
		if in.source.cut != nil {
			t.polls++
		}
		targets = append(targets, t)
		in.file.stale, in.file.cannotSplice = true, false
		in.source.pollNow(now)
		in.hurry()
	}
	d.tell()
	return targets
}

// await waits until a check is over.
func (d *Daemon) await(ctx context.Context, targets []target) error {
	for {
		now := time.Now()
		// Each for itself: one of many sources is being polled at any time.
		targets = slices.DeleteFunc(targets, func(t target) bool { return d.reached(t, now) })
		switch {
		case len(targets) == 0:
			return nil
		case d.ended:
			return ErrEnded
		case ctx.Err() != nil:
			return ctx.Err()
		}
		d.wait(time.Time{}, ctx.Done())
	}
}

// reached reports whether nothing more comes of a check of an instance now.
func (d *Daemon) reached(t target, now time.Time) bool {
	in := t.in
	idle := in.busy == actionNone && in.plan(now, d.rules()).action == actionNone
	unsaved := in.record.unsaved && in.record.retry.due(now)
	editing := in.file.err != nil && !in.file.unusable() // an editor may be at work
	switch {
	case in.file.recovery.isFailing() && idle, d.hung(in) != nil:
		return true
	case in.file.looks < t.looks, in.source.polls < t.polls, !idle, in.source.cut != nil, !now.Before(in.source.next), in.record.saving,
		unsaved, editing:
		return false
	case d.activating:
		return slices.ContainsFunc(d.underWay, func(s *step) bool { return s.hangs && s.commands })
	}
	return len(in.record.Activation) == 0 || now.Before(d.activationAt(in))
}

// drainGrace is how long polls that were cut short, and what is done with files, may take to end.
const drainGrace = 6 * time.Second

// Drain is for a Daemon that is to be stopped and replaced by another in this process. It has no command and no poll begun any more and
// cuts polls short. Files are guarded until what is under way of these has ended; then nothing is begun any more. It returns when nothing
// runs. When something does not end, Run goes on as before, and the error says so.
func (d *Daemon) Drain() error {
	d.lock.take()
	defer d.unlock()
	d.draining = true
	for _, w := range d.sources {
		if w.cut != nil {
			w.cut()
		}
	}
	for since := time.Now(); len(d.underWay) > 0; { // or the end of the last command
		now := time.Now()
		stuck := slices.IndexFunc(d.underWay, func(s *step) bool { return s.hangs })
		switch {
		case d.ended:
			return ErrEnded
		case stuck >= 0 || !d.commandStep() && now.Sub(since) >= drainGrace:
			d.draining = false
			d.tell()
			s := d.underWay[max(0, stuck)]
			return fmt.Errorf("instance %s: %v", s.names(), s)
		case d.commandStep():
			since = now
		}
		d.wait(now.Add(drainGrace/10), nil)
	}
	return nil
}

// mayGuard reports whether steps on files and records may begin.
func (d *Daemon) mayGuard() bool {
	return !d.draining || d.commandStep() || slices.ContainsFunc(d.sources, func(w *source) bool { return w.cut != nil })
}
