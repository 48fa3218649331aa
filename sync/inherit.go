package sync

import (
	"maps"
	"time"
)

// inherit goes on with what the Daemon before knew of an instance (Config.Before): one that is in sync stays so in the status, what was
// logged is not logged again, and a credential in hand needs no source.
func (in *instance) inherit(before *instance, now time.Time) {
	in.record, in.activation = before.record, before.activation // the record may be what could not be saved
	in.activation.notBefore = time.Time{}                       // by another configuration
	in.activation.looks = false                                 // one that was left behind
	in.detected = before.detected
	if r := &in.record; r.saving || len(r.Reverts) > 0 {
		r.saving = false // a save that was left behind tells nobody how it ended
		r.Reverts = nil  // the brake is released
		r.unsaved = true
	}
	if before.wanted.force == forSchedule {
		in.wanted.force = forSchedule
	}
	if in.Sink == before.Sink {
		in.file, in.fileTrouble = before.file, before.fileTrouble
		in.file.touched(true, now) // nobody took events between the two; and what alert mode left alone was loaded
		in.wanted.retry = before.wanted.retry
	}
	if in.Source == before.Source {
		w, was := &in.wanted, before.wanted
		in.sourceTrouble = before.sourceTrouble
		in.source.lastPoll, in.source.retry = before.source.lastPoll, before.source.retry
		w.newest = was.newest
		if in.AllowRollback == before.AllowRollback && maps.Equal(in.Fields, before.Fields) {
			w.pending, w.refusal, w.alarm = was.pending, was.refusal, was.alarm
		}
	}
}
