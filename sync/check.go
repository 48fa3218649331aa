package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// request is a full check that somebody asked for, or a drain. A check is over when each of its instances was looked at, its source
// polled, and everything that could be done at once was done or has failed.
type request struct {
	names   []string  // of instances to be checked; empty = all
	targets []target  // those that are not settled yet
	drain   bool      // no check
	since   time.Time // of a drain: its begin, or the end of the last command
	err     error     // of a drain; may be read when it is over
	over    chan struct{}
}

// target is what an instance must have reached.
type target struct {
	in           *instance
	looks, polls int
}

// drainGrace is how long polls that were cut short, and what is done with files, may take to end.
const drainGrace = 6 * time.Second

// ErrEnded says that Run has returned, or is about to.
var ErrEnded = errors.New("the daemon is stopping")

// Check runs a full check of the named instances (none = all) now, retrying at once whatever waits for a retry, and returns the status
// after it. Like Ping and Drain it may be called from any goroutine while Run runs.
func (d *Daemon) Check(ctx context.Context, names ...string) (Status, error) {
	for _, name := range names {
		if d.find(name) == nil {
			return Status{}, fmt.Errorf("no instance is called %q", name)
		}
	}
	if err := d.submit(ctx, &request{names: names}); err != nil {
		return Status{}, err
	}
	return d.Status(), nil
}

// Ping returns when the loop has answered: proof that it is alive.
func (d *Daemon) Ping(ctx context.Context) error {
	return d.submit(ctx, &request{names: []string{""}}) // of no instance, so over at once
}

// Drain has Run start no command and no poll any more, cuts polls short, and returns when nothing runs. Files are guarded meanwhile. It
// is for a daemon that is to be stopped and replaced by another in this process. When something does not end, Run goes on as before,
// and the error says so.
func (d *Daemon) Drain(ctx context.Context) error {
	return d.submit(ctx, &request{drain: true})
}

// submit hands r to the loop and waits for its end.
func (d *Daemon) submit(ctx context.Context, r *request) error {
	r.over = make(chan struct{})
	select {
	case d.requests <- r:
	case <-d.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-r.over:
		return r.err
	case <-d.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Daemon) begin(r *request, now time.Time) {
	d.waiting = append(d.waiting, r)
	if r.drain {
		d.halted, r.since = true, now
		d.cutPolls()
		return
	}
	for _, in := range d.instances {
		if len(r.names) > 0 && !slices.Contains(r.names, in.Name) {
			continue
		}
		t := target{in, in.file.looks + 1, in.source.polls + 1}
		if in.busy == actionLook || in.busy == actionRestore {
			t.looks++ // the one under way began before it was asked for
		}
		if in.source.polling {
			t.polls++
		}
		r.targets = append(r.targets, t)
		in.file.stale, in.file.cannotSplice = true, false
		in.source.pollNow(now)
		in.hurry()
	}
}

// endRequests is called after advance, so what could be started has been.
func (d *Daemon) endRequests(now time.Time) (again time.Time) {
	d.waiting = slices.DeleteFunc(d.waiting, func(r *request) bool {
		if r.drain && !d.drained(r, now) {
			again = now.Add(drainGrace / 10)
			return false
		}
		// Each for itself: one of many sources is being polled at any time.
		r.targets = slices.DeleteFunc(r.targets, func(t target) bool { return d.settled(t, now) })
		if len(r.targets) == 0 {
			close(r.over)
		}
		return len(r.targets) == 0
	})
	return again
}

// settled reports whether nothing more comes of a check of an instance now.
func (d *Daemon) settled(t target, now time.Time) bool {
	in := t.in
	switch {
	case in.file.recovery.failed() && in.busy == actionNone, d.hung(in) != nil:
		return true
	case in.file.looks < t.looks, in.source.polls < t.polls, in.busy != actionNone, in.source.polling, in.record.saving, !in.record.settled():
		return false
	case in.file.err != nil && !in.file.unusable(): // an editor may be at work
		return false
	case d.activating:
		return slices.ContainsFunc(d.steps, func(s *step) bool { return s.hangs && s.commands })
	}
	return len(in.record.Activation) == 0 || now.Before(d.activationAt(in))
}

// drained reports whether a drain is over. Then r.err tells whether it failed.
func (d *Daemon) drained(r *request, now time.Time) bool {
	stuck := slices.IndexFunc(d.steps, func(s *step) bool { return s.hangs })
	switch {
	case len(d.steps) == 0:
		return true
	case stuck < 0 && d.commandStep():
		r.since = now
		return false
	case stuck < 0 && now.Sub(r.since) < drainGrace:
		return false
	}
	s := d.steps[max(0, stuck)]
	r.err = fmt.Errorf("instance %s: %v", s.names(), s)
	d.halted = false
	d.polls, d.cutPolls = context.WithCancel(d.work)
	d.wakeUp()
	return true
}
