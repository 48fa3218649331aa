package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// pass is a full check that somebody asked for. It is over when each of its instances was looked at, its source polled,
// and everything that could be done at once was done or has failed.
type pass struct {
	names   []string // empty = all
	over    chan struct{}
	targets []target  // of the loop: those that are not settled yet
	drain   bool      // no check, but an end of all that runs
	since   time.Time // of drain: when its part under way began
	err     error     // of drain; may be read when it is over
}

// halt says what is not started any more, while a Daemon is drained.
type halt int

const (
	haltNothing  halt = iota
	haltCommands      // no command and no poll
	haltAll           // nothing but the saving of what is unsaved
)

// drainGrace is how long polls that were cut short, and what is done with files, may take to end.
const drainGrace = 6 * time.Second

type target struct {
	in           *instance
	looks, polls int // must be reached
}

// Check runs a full check of the named instances (none = all) now, retrying at once whatever waits for a retry, and
// returns the status after it. It may be called from any goroutine while Run runs.
func (d *Daemon) Check(ctx context.Context, names ...string) (Status, error) {
	for _, name := range names {
		if !slices.ContainsFunc(d.cfg.Instances, func(in Instance) bool { return in.Name == name }) {
			return Status{}, fmt.Errorf("no instance is called %q", name)
		}
	}
	if err := d.submit(ctx, &pass{names: names, over: make(chan struct{})}); err != nil {
		return Status{}, err
	}
	return d.Status(), nil
}

// ErrEnded says that Run has returned, or is about to.
var ErrEnded = errors.New("the daemon is stopping")

// Ping returns when the loop has taken a turn: proof that it is alive.
func (d *Daemon) Ping(ctx context.Context) error {
	return d.submit(ctx, &pass{names: []string{""}, over: make(chan struct{})}) // of no instance, so over at once
}

// Drain has Run start no command any more, neither an apply nor an activation, cuts polls short, and, once none of them runs,
// start nothing else; it returns when nothing runs. Files are guarded meanwhile, but for the last moment. It is for a daemon
// that is to be replaced by another in this process. When something does not end, Run goes on as before, and the error says so.
func (d *Daemon) Drain(ctx context.Context) error {
	p := &pass{drain: true, over: make(chan struct{})}
	if err := d.submit(ctx, p); err != nil {
		return err
	}
	return p.err
}

// submit hands p to the loop and waits for its end.
func (d *Daemon) submit(ctx context.Context, p *pass) error {
	select {
	case d.passes <- p:
	case <-d.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-p.over:
		return nil
	case <-d.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Daemon) beginPass(p *pass, now time.Time) {
	if p.drain {
		d.halting, p.since = haltCommands, now
		d.cutPolls()
		d.waiting = append(d.waiting, p)
		return
	}
	for _, in := range d.instances {
		if len(p.names) > 0 && !slices.Contains(p.names, in.Name) {
			continue
		}
		t := target{in: in, looks: in.looks + 1, polls: in.source.polls + 1}
		in.disk.stale, in.cannotPut = true, false
		if in.busy == doLook || in.busy == doRestore {
			t.looks++ // the one under way began before it was asked for
		}
		if in.source.polling {
			t.polls++
		}
		in.source.pollNow(now)
		for _, r := range in.retries() {
			r.hurry()
		}
		p.targets = append(p.targets, t)
	}
	d.waiting = append(d.waiting, p)
}

// endPasses is called after advance, so what could be started has been.
func (d *Daemon) endPasses(now time.Time) (again time.Time) {
	d.waiting = slices.DeleteFunc(d.waiting, func(p *pass) bool {
		if p.drain && !d.drained(p, now) {
			again = now.Add(drainGrace / 10)
			return false
		}
		// Each for itself: one of many sources is being polled at any time.
		p.targets = slices.DeleteFunc(p.targets, func(t target) bool { return d.settled(t, now) })
		if len(p.targets) > 0 {
			return false
		}
		close(p.over)
		return true
	})
	return again
}

// drained takes the parts of a drain, and reports whether it is over. Then p.err tells whether it failed.
func (d *Daemon) drained(p *pass, now time.Time) bool {
	i := slices.IndexFunc(d.running, func(s *task) bool { return s.hangs })
	switch {
	case i >= 0:
		p.err = fmt.Errorf("instance %s: %v", d.running[i].names(), d.running[i])
	case d.commandRuns():
		p.since = now
		return false
	case now.Sub(p.since) > drainGrace && len(d.running) > 0:
		p.err = fmt.Errorf("instance %s: %v", d.running[0].names(), d.running[0])
	case d.halting == haltCommands:
		if !d.polling() {
			d.halting, p.since = haltAll, now
			d.nudge()
		}
		return false
	default:
		unsaved := func(in *instance) bool { return !in.onRecord() }
		return len(d.running) == 0 && !slices.ContainsFunc(d.instances, unsaved)
	}
	d.halting = haltNothing
	d.polls, d.cutPolls = context.WithCancel(d.work)
	d.nudge()
	return true
}

// commandRuns reports whether an apply or an activation is under way.
func (d *Daemon) commandRuns() bool {
	return d.activating || slices.ContainsFunc(d.instances, func(in *instance) bool { return in.busy == doApply })
}

// polling reports whether a poll is under way, be it one that was cut short: a login's answer is waited for a while longer.
func (d *Daemon) polling() bool {
	return slices.ContainsFunc(d.sources, func(w *watched) bool { return w.polling })
}

func (d *Daemon) settled(t target, now time.Time) bool {
	in := t.in
	if in.recoverTry.failed() && in.busy == doNothing {
		return true
	}
	switch {
	case d.hung(in) != nil:
		return true // nothing more comes of it now
	case in.looks < t.looks, in.source.polls < t.polls:
		return false
	case in.busy != doNothing, in.saving, in.source.polling:
		return false
	case !in.onRecord():
		return false
	case in.disk.err != nil && !in.disk.outOfOrder():
		return false // an editor may be at work
	case d.activating:
		return slices.ContainsFunc(d.running, func(s *task) bool { return s.hangs && s.commands })
	}
	return len(in.record.Activation) == 0 || now.Before(d.activationDue(in))
}
