package sync

import (
	"context"
	"fmt"
	"time"
)

// Overslept names what is to be done now by a goroutine that waits; "" if nothing is. Asked when everybody waits (synctest.Wait), it finds
// a wake-up that was lost, also where longestRest would hide that.
func (d *Daemon) Overslept() string {
	d.lock.take()
	defer func() { <-d.lock }()
	now := time.Now()
	if d.phase > working {
		return ""
	}
	for _, in := range d.instances {
		a := d.plan(in, now).action
		waits := a == actionNone || in.busy != actionNone
		if a == actionRecordIntent && !in.file.restore.due(now) { // drift has become old since: that is recorded when its revert is tried again
			waits = true
		}
		if !waits {
			return fmt.Sprintf("%s: action %d", in.Name, a)
		}
		if r := &in.record; r.unsaved && !r.saving && !now.Before(later(r.saveAt, r.retry.at)) {
			return in.Name + ": save of the record"
		}
		if what, at := d.planProbe(in, now); what != askNothing && !now.Before(at) && in.probe.cut == nil {
			return fmt.Sprintf("%s: question %d", in.Name, what)
		}
	}
	for _, in := range d.instances {
		if in.record.Paused != nil && !in.isPaused(now) {
			return in.Name + ": end of the pause"
		}
		is, shown := d.statusOf(in, d.conditionOf(in, now), now), *in.status.Load()
		if is.Braked = shown.Braked; is != shown { // the brake ends by its time, which the next poll shows
			return fmt.Sprintf("%s: status is\n%+v, and shown is\n%+v", in.Name, is, shown)
		}
	}
	for i, s := range d.sources {
		if s.cut == nil && !now.Before(s.next) {
			return fmt.Sprintf("source %d: poll", i)
		}
	}
	if s, members, _ := d.planActivation(now); len(members) > 0 && d.activating == nil {
		return "activation: " + s.String()
	}
	return ""
}

// CheckAll is Check without the order: what is held stays so.
func (d *Daemon) CheckAll(ctx context.Context) error {
	d.lock.take()
	defer d.unlock()
	d.beginCheck(d.instances, time.Now())
	return d.await(ctx, d.instances)
}

// IsChecked reports whether a check of all instances is over. Asked when everybody waits, one that goes on was not woken.
func (d *Daemon) IsChecked() bool {
	d.lock.take()
	defer func() { <-d.lock }()
	for _, in := range d.instances {
		if !d.isChecked(in, time.Now()) {
			return false
		}
	}
	return true
}
