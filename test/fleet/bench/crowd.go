package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	credsync "campaign-credsync/sync"
)

// crowd is what the daemons tell about themselves.
type crowd struct {
	changed chan struct{} // 1 slot

	mu     sync.Mutex
	hosts  []told
	back   []time.Time   // times at which one that had lost Vault was in sync again
	logins [][]time.Time // by daemon
}

type told struct {
	inSync  bool
	applied map[int]time.Time // by version: when it was told of first
}

func newCrowd(n int) *crowd {
	c := &crowd{changed: make(chan struct{}, 1), hosts: make([]told, n), logins: make([][]time.Time, n)}
	for i := range c.hosts {
		c.hosts[i].applied = map[int]time.Time{}
	}
	return c
}

// status takes what daemon i tells.
func (c *crowd) status(i int, s []credsync.InstanceStatus) {
	now := time.Now()
	in := s[0]
	c.mu.Lock()
	defer c.mu.Unlock()
	h := &c.hosts[i]
	if _, known := h.applied[in.AppliedVersion]; !known && in.AppliedVersion > 0 {
		h.applied[in.AppliedVersion] = now
	}
	if inSync := in.State == credsync.StateInSync; inSync != h.inSync {
		h.inSync = inSync
		if inSync {
			c.back = append(c.back, now)
		}
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// patience is far above all bounds: what takes longer does not come.
const patience = 10 * time.Minute

// await waits until all daemons fit.
func (c *crowd) await(ctx context.Context, fits func(told) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		missing := 0
		c.mu.Lock()
		for _, h := range c.hosts {
			if !fits(h) {
				missing++
			}
		}
		c.mu.Unlock()
		if missing == 0 {
			return nil
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			return fmt.Errorf("%d daemons are missing: %w", missing, ctx.Err())
		}
	}
}

// appliedAfter returns how long after a moment each daemon had applied a version, sorted.
func (c *crowd) appliedAfter(version int, moment time.Time) (all []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		all = append(all, h.applied[version].Sub(moment))
	}
	slices.Sort(all)
	return all
}

// backBetween returns how long after a moment each was in sync again, sorted, of those that were before another moment.
func (c *crowd) backBetween(moment, end time.Time) (all []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.back {
		if at.After(moment) && at.Before(end) {
			all = append(all, at.Sub(moment))
		}
	}
	slices.Sort(all)
	return all
}

// betweenLogins is the mean time from one login of a daemon to its next before a moment; 0 without any.
func (c *crowd) betweenLogins(before time.Time) (mean time.Duration, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sum time.Duration
	for _, times := range c.logins {
		for i := 1; i < len(times) && times[i].Before(before); i++ {
			sum += times[i].Sub(times[i-1])
			n++
		}
	}
	if n == 0 {
		return 0, 0
	}
	return sum / time.Duration(n), n
}

// listener is a daemon's log, of which only one line is of interest.
type listener struct {
	crowd  *crowd
	daemon int
}

func (l listener) Enabled(context.Context, slog.Level) bool { return true }

func (l listener) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "logged in to vault" {
		l.crowd.mu.Lock()
		defer l.crowd.mu.Unlock()
		l.crowd.logins[l.daemon] = append(l.crowd.logins[l.daemon], time.Now())
	}
	return nil
}

func (l listener) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l listener) WithGroup(string) slog.Handler      { return l }
