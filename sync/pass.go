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
	targets []target // set by the loop
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
	p := &pass{names: names, over: make(chan struct{})}
	select {
	case d.passes <- p:
	case <-d.ended:
		return Status{}, errEnded
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
	select {
	case <-p.over:
		return d.Status(), nil
	case <-d.ended:
		return Status{}, errEnded
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
}

var errEnded = errors.New("the daemon is stopping")

// Ping returns when the loop has taken a turn: proof that it is alive.
func (d *Daemon) Ping(ctx context.Context) error {
	p := &pass{names: []string{""}, over: make(chan struct{})} // of no instance, so over at once
	select {
	case d.passes <- p:
	case <-d.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-p.over:
		return nil
	case <-d.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Daemon) beginPass(p *pass, now time.Time) {
	for _, in := range d.instances {
		if len(p.names) > 0 && !slices.Contains(p.names, in.Name) {
			continue
		}
		t := target{in: in, looks: in.looks + 1, polls: in.source.polls + 1}
		in.disk.stale = true
		if in.busy == doLook || in.busy == doRestore {
			t.looks++ // the one under way began before it was asked for
		}
		if in.source.polling {
			t.polls++
			in.source.again = true
		} else {
			in.source.next = now
		}
		for _, r := range []*retry{&in.recoverTry, &in.applyTry, &in.restoreTry, &in.activateTry, &in.saveRetry} {
			r.hurry()
		}
		p.targets = append(p.targets, t)
	}
	d.waiting = append(d.waiting, p)
}

// endPasses is called after advance, so what could be started has been.
func (d *Daemon) endPasses(now time.Time) {
	d.waiting = slices.DeleteFunc(d.waiting, func(p *pass) bool {
		for _, t := range p.targets {
			if !d.settled(t, now) {
				return false
			}
		}
		close(p.over)
		return true
	})
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
	case in.saved != in.seq && !in.saveRetry.failed():
		return false
	case in.disk.err != nil && !in.disk.outOfOrder():
		return false // an editor may be at work
	case d.activating:
		return false
	}
	return len(in.record.Activation) == 0 || now.Before(d.activationDue(in))
}
