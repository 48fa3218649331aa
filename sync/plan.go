package sync

import (
	"fmt"
	"maps"
	"time"

	"campaign-credsync/internal/credential"
)

// action is what is to be done about the file of an instance.
type action int

const (
	actionNone         action = iota
	actionRecover             // finish what an earlier daemon, or an apply that failed, left
	actionLook                // read the file
	actionRestore             // look, and revert by a splice what differs
	actionApply               // run nlserver
	actionRecordSame          // record a new version with the same credential
	actionRecordIntent        // record that the revert to come must be followed by activation
	actionFetch               // ask the source for the credential that is applied, to revert drift with it
)

// decision is the answer: an action for now, or else when to ask again even if nothing happens (zero: not at all).
type decision struct {
	action action
	again  time.Time
	left   leftDrift
}

// leftDrift is why drift stays that is on disk. The zero value says that it is about to be reverted.
type leftDrift struct {
	reason  credential.Reason // ReasonDriftAlert, ReasonDriftBrake or ReasonDriftStuck
	text    string
	retryAt time.Time
}

// plan decides what is to be done about the file of an instance. It is a pure function.
func (d *Daemon) plan(in *instance, now time.Time) decision {
	f, w := &in.file, &in.wanted
	switch {
	case !f.recovered:
		return decision{action: actionRecover, again: f.recovery.at}.from(now)
	case !d.mayWrite(in, now):
		if f.checkedAt.IsZero() || f.stale || isTime(f.lookAt, now) {
			return decision{action: actionLook}
		}
		return decision{again: f.lookAt}
	case f.checkedAt.IsZero() || f.stale || isTime(f.lookAt, now):
		if d.maySplice(in, now) && f.restore.due(now) {
			return decision{action: actionRestore}
		}
		return decision{action: actionLook}
	case f.err != nil: // missing or damaged: nothing is written until it is whole again
		return decision{again: f.lookAt}
	}
	switch {
	case w.pending != nil && !in.isHeld() && !in.isToApply():
		return decision{action: actionRecordSame}
	case d.appliesNow(in, now) && !d.awaitsProbe(in) && d.activating == nil && d.phase == working && !in.record.saving:
		return decision{action: actionApply}
	}
	// An apply has to wait, and one that failed may have damaged what worked: what was applied before is restored meanwhile.
	next := d.planRevert(in, now)
	if in.isToApply() && !w.retry.due(now) {
		next.again = earlier(next.again, w.retry.at)
	}
	return next
}

// isToApply reports whether the credential in hand is to be applied: it is not held, and not applied already.
func (in *instance) isToApply() bool {
	p := in.wanted.pending
	return p != nil && !in.isHeld() && (!in.isApplied(p) || in.wanted.force != notForced || in.record.Applying != nil)
}

// appliesNow reports whether it is to be applied as soon as the steps under way permit.
func (d *Daemon) appliesNow(in *instance, now time.Time) bool {
	return in.isToApply() && d.mayWrite(in, now) && in.wanted.retry.due(now) && in.file.recovered && in.file.err == nil
}

// mayWrite reports whether anything may be written or run for an instance, but what ends an earlier run (actionRecover).
func (d *Daemon) mayWrite(in *instance, now time.Time) bool {
	return !d.cfg.OnlyLooks && in.adopting == 0 && !in.isPaused(now)
}

// mayRun reports whether a command may be run for an instance: none is while its first apply is held.
func (d *Daemon) mayRun(in *instance, now time.Time) bool { return d.mayWrite(in, now) && !in.isHeld() }

// planRevert decides what is to be done about drift, should there be any, and tells why it stays.
func (d *Daemon) planRevert(in *instance, now time.Time) (next decision) {
	f, w := &in.file, &in.wanted
	if len(in.drift()) == 0 {
		return decision{}
	}
	end, braked := in.record.brake(d.cfg.MaxReverts, now)
	switch {
	case d.cfg.Revert == RevertAlert:
		next.left = leftDrift{credential.ReasonDriftAlert, "drift is only reported (drift.revert: alert)", time.Time{}}
		return next
	case braked:
		next.again = end
		next.left = leftDrift{credential.ReasonDriftBrake, "drift is not reverted for now: more than drift.max_reverts reverts in an hour", end}
		return next
	case d.maySplice(in, now):
		next = decision{action: actionRestore, again: f.restore.at}.from(now)
		if in.mustRecordIntent(now) {
			next = decision{action: actionRecordIntent}
		}
		next.left = leftBy(&f.restore)
		return next
	case in.isSetByOthers():
		next.left = leftDrift{reason: credential.ReasonDriftStuck, text: in.stuck()}
		return next
	case w.refusal != nil: // the credential to be applied again cannot be had
		next.left = leftDrift{reason: credential.ReasonDriftStuck, text: w.refusal.Error()}
	case w.retry.isFailing():
		next.left = leftBy(&w.retry)
	default:
		next.left = leftBy(&in.source.retry)
	}
	if w.pending == nil && w.force == notForced {
		next.action = actionFetch
	} // else an apply is about to revert it
	return next
}

// leftBy is for drift that stays where the last attempt at its revert failed.
func leftBy(r *retry) leftDrift {
	if !r.isFailing() {
		return leftDrift{}
	}
	return leftDrift{credential.ReasonDriftStuck, r.reason, r.at}
}

// from returns the action once the time for it has come, and before that the wait.
func (d decision) from(now time.Time) decision {
	if now.Before(d.again) {
		return decision{again: d.again}
	}
	return decision{action: d.action}
}

// maySplice reports whether drift, should there be any, is reverted by a splice.
func (d *Daemon) maySplice(in *instance, now time.Time) bool {
	_, braked := in.record.brake(d.cfg.MaxReverts, now)
	mode := d.cfg.Revert == RevertSplice || (d.cfg.Revert == RevertApply && in.isSetByOthers())
	return mode && !braked && !in.file.cannotSplice && in.record.Applying == nil && len(in.record.Attributes) > 0
}

// mustRecordIntent reports whether it has to be on record, before a revert, that activation must follow it: a crash in between would
// leave the processes with drift that no start finds any more.
func (in *instance) mustRecordIntent(now time.Time) bool {
	return len(in.Steps) > 0 && in.file.mayHaveLoaded(now) && !in.record.RevertOwesActivation
}

// drift names the managed attributes that the last look saw differ from what was applied. While nobody knows what an interrupted command
// has written, nothing is called drift: it may be the newer credential.
func (in *instance) drift() []string {
	if in.file.checkedAt.IsZero() || in.file.err != nil || in.record.Applying != nil {
		return nil
	}
	return credential.Drift(in.record.Attributes, in.file.seen)
}

// isApplied reports whether p is the credential that is applied already, under another version. It is asked anew each time: an apply
// may have come in between.
func (in *instance) isApplied(p *pending) bool {
	return !in.record.Version.IsZero() && p.digest == in.record.Digest
}

// rollback is the refusal of a version that is older than what is applied, or about to be, and must not be. Nil for every other.
func (in *instance) rollback(v credential.Version) *credential.Refusal {
	from, p := in.record.Version, in.wanted.pending
	if p != nil && v.GoesBackFrom(p.version) {
		from = p.version
	}
	if in.AllowRollback || !v.GoesBackFrom(from) {
		return nil
	}
	return &credential.Refusal{Version: v, Code: credential.ReasonSecretRollback, Reason: fmt.Sprintf("goes back from version %d (or was created before it): "+
		"the source is behind (a node of a cluster?) or was rolled back; set allow_rollback for the instance if that is meant", from.Number)}
}

// refuses reports whether v would be refused again. Whether Adobe does is on record, so that it can be asked again.
func (in *instance) refuses(v credential.Version) bool {
	r := in.wanted.refusal
	return (r != nil && r.Version.Equal(v) && r.Code != credential.ReasonIMSRefused) || in.refusedByAdobe(v) != nil
}

// isKnown reports whether the credential that v holds is applied, and need not be applied again.
func (in *instance) isKnown(v credential.Version) bool {
	r := &in.record
	sameFields := len(r.Fields) == 0 || maps.Equal(r.Fields, in.Fields) // under other names it is another credential
	return v.Equal(r.Version) && sameFields && r.Applying == nil && in.wanted.force == notForced
}

// wants reports whether the secret of v has to be read.
func (in *instance) wants(v credential.Version) bool {
	p := in.wanted.pending
	if in.adopting > 0 {
		return in.wanted.read == nil || !in.wanted.read.version.Equal(v)
	}
	return in.wantsApplied(v) || (in.rollback(v) == nil && !in.refuses(v) && !in.isKnown(v) && (p == nil || !p.version.Equal(v)))
}
