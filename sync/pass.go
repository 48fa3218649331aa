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
	targets []target // of the loop: those that are not settled yet
	drain   bool     // no check, but an end of all polls and of all that runs a command
}

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

// Drain has Run start no command any more, neither an apply nor an activation, cuts polls short, and returns when none of them
// runs. Files are guarded as before until Run's context ends. It is for a daemon that is to be replaced by another in this process.
func (d *Daemon) Drain(ctx context.Context) error {
	return d.submit(ctx, &pass{drain: true, over: make(chan struct{})})
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
		d.draining = true
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
func (d *Daemon) endPasses(now time.Time) {
	d.waiting = slices.DeleteFunc(d.waiting, func(p *pass) bool {
		if p.drain && (d.commandRuns() || d.polling()) {
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
	case in.looks < t.looks, in.source.polls < t.polls:
		return false
	case in.busy != doNothing, in.saving, in.source.polling:
		return false
	case !in.onRecord():
		return false
	case in.disk.err != nil && !in.disk.outOfOrder():
		return false // an editor may be at work
	case d.activating:
		return false
	}
	return len(in.record.Activation) == 0 || now.Before(d.activationDue(in))
}
