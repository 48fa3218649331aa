package sync

import (
	"maps"
	"time"
)

// A Daemon may replace another in the same process (Config.Before). It adopts what that one knew, as far as it still holds: an
// instance that is in sync stays so in the status, what was logged is not logged again, a credential in hand needs no source, and what
// waited for a retry is tried at once. What was known of a Source or a Sink counts only where both have the same one.

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

// adopt goes on with what is known of an instance.
func (in *instance) adopt(before *instance, sameMode bool) {
	in.record = before.record // not loaded again: it may be what could not be saved
	in.record.saving = false  // one that was left behind tells nobody how it ended
	if len(in.record.Reverts) > 0 {
		in.record.Reverts = nil // the brake is released
		in.record.changed(time.Now())
	}
	in.told = before.told
	if before.wanted.reason == forSchedule {
		in.wanted.reason = forSchedule
	}
	if in.Sink == before.Sink {
		in.file = before.file
		in.file.stale = true
		in.file.missedAt = time.Now() // nobody took events between the two; and what alert mode left alone was loaded
		in.file.cannotSplice = false
		if !sameMode {
			in.file.logged = driftNotLogged
		}
		in.wanted.retry = before.wanted.retry
	}
	if in.Source == before.Source {
		in.source.adopt(before.source)
		in.wanted.newest = before.wanted.newest
		if in.AllowRollback == before.AllowRollback && maps.Equal(in.Fields, before.Fields) {
			in.wanted.refusal, in.wanted.flaps, in.wanted.pending = before.wanted.refusal, before.wanted.flaps, before.wanted.pending
		}
	}
	in.hurry()
}

// hurry ends all waits of an instance: an operator asked.
func (in *instance) hurry() {
	for _, r := range []*retry{&in.record.retry, &in.file.recovery, &in.file.restore, &in.wanted.retry, &in.told.retry} {
		r.hurry()
	}
}

// adopt goes on with what is known of a source.
func (w *source) adopt(before *source) {
	w.polls, w.lastPoll, w.retry = before.polls, before.lastPoll, before.retry
	w.retry.hurry()
}
