package sync

import (
	"maps"
	"reflect"
	"time"
)

// A Daemon may take the place of another in the same process (Config.Before). It goes on with what that one knew, as far as
// it still holds: an instance that is in order stays so in the status, what was told is not told again, a credential that is
// in hand needs no source, and what waited for a retry is tried at once. What was known of a Source or a Sink counts only
// where the new Daemon has the same one: another may look elsewhere.

// find returns the instance of that name, or nil; d may be nil.
func (d *Daemon) find(name string) *instance {
	if d == nil {
		return nil
	}
	for _, in := range d.instances {
		if in.Name == name {
			return in
		}
	}
	return nil
}

// takeOver goes on with what old knew of an instance.
func (in *instance) takeOver(before *instance, old, now Config) {
	// Not read again: it may be what could not be saved.
	in.record = before.record
	if before.saved != before.seq {
		in.seq, in.saveRetry = 1, before.saveRetry
	}
	in.braked = before.braked
	in.activateTry, in.dueSince = before.activateTry, before.dueSince
	if before.force == forceReapply {
		in.force = forceReapply
	}
	sameMode := old.Revert == now.Revert
	if in.Sink == before.Sink {
		in.recovered, in.recoverTry = before.recovered, before.recoverTry
		in.disk = before.disk
		in.disk.stale = true
		in.disk.missedAt = time.Now() // nobody took events between the two; and what alert mode left alone was loaded
		in.unproved = before.unproved
		in.applyTry, in.restoreTry = before.applyTry, before.restoreTry
		in.alerted = before.alerted && sameMode
	}
	if in.Source == before.Source {
		in.wanted = before.wanted
		if in.AllowRollback == before.AllowRollback && maps.Equal(in.Fields, before.Fields) {
			in.refusal, in.lifted, in.pending = before.refusal, before.lifted, before.pending
		}
		if in.pending != nil && in.pending.force == forceDrift && !sameMode {
			in.pending = nil
		}
	}
	for _, r := range in.retries() {
		r.hurry()
	}
}

// retries are all waits of an instance that end when somebody asks.
func (in *instance) retries() []*retry {
	return []*retry{&in.recoverTry, &in.applyTry, &in.restoreTry, &in.activateTry, &in.saveRetry}
}

// takeOver goes on with what was known of a source.
func (w *watched) takeOver(before *watched) {
	w.answered = before.asked()
	w.err, w.lastPoll = before.err, before.lastPoll
	w.retry = before.retry
	w.retry.hurry()
}

// asked reports whether anything is known of the source.
func (w *watched) asked() bool { return w.polls > 0 || w.answered }

// takeOverReapply keeps the time of a schedule that did not change: one that counts from the start would never come where
// reloads are more frequent.
func (d *Daemon) takeOverReapply(old *Daemon) (at time.Time) {
	if reflect.DeepEqual(old.cfg.Reapply, d.cfg.Reapply) {
		return old.reapplyAt
	}
	return time.Time{}
}
