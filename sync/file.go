package sync

import (
	"errors"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/jitter"
	"campaign-credsync/internal/trouble"
	"campaign-credsync/sync/event"
)

// file is what is known of the configuration file.
type file struct {
	recovered bool // nothing is left to finish of an earlier daemon, or of an apply that failed
	recovery  retry

	stale     bool                  // something may have happened since the last look
	seen      credential.Attributes // by the last look
	hasKey    bool                  // by the last look that could tell
	err       error                 // of the last look; seen is then of no use
	errSince  time.Time             // the first of the looks in a row that ended in err
	trouble   trouble.Trouble       // of that row
	lookAt    time.Time             // look again then at the latest; zero = no need
	checkedAt time.Time             // end of the last look, whatever it showed; zero = never looked

	// What tells since when there may be drift. suspectAt and missedAt are zero when there was none of it after rightAt.
	rightAt   time.Time // begin of the last look that saw no drift
	suspectAt time.Time // first event, or first look that did not see the file right
	missedAt  time.Time // last moment at which events may have been missed
	changedAt time.Time // change time of the file at the last look
	owner     string    // of the file, at the last look that saw drift

	restore      retry
	drifted      bool           // the drift that is on disk is counted
	unproved     []event.Change // what a revert that failed may have reverted all the same
	cannotSplice bool           // a splice was tried for this drift and cannot work
	leftTold     bool           // that drift is not reverted
	brakeTold    time.Time      // end of the brake that was told last
}

// How a file that is missing or damaged is looked at again: an editor may be in the middle of its work.
const (
	lookFirst = 20 * time.Millisecond
	lookGrace = 300 * time.Millisecond // trouble that lasts longer is logged
	lookAgain = time.Second            // the longest wait, as no event tells that a writer has closed the file
)

// longDrift is the age from which on Campaign's processes may have read the drift.
const longDrift = 2 * time.Second

// unusable reports trouble that outlasted the work of an editor.
func (f *file) unusable() bool { return f.err != nil && f.checkedAt.Sub(f.errSince) >= lookGrace }

// mayHaveLoaded reports whether the processes may have read the drift that is on disk until now, should there be any. Change times are
// of the wall clock; one that was set back counts as long.
func (f *file) mayHaveLoaded(now time.Time) bool {
	since := f.rightAt
	if !since.IsZero() && f.missedAt.IsZero() && f.changedAt.After(since) && !f.changedAt.After(now) {
		since = earlier(f.suspectAt, f.changedAt)
	}
	age := now.Round(0).Sub(since.Round(0))
	return since.IsZero() || age < 0 || age > longDrift
}

// seenRight notes a look that began at asOf and saw no drift.
func (f *file) seenRight(asOf time.Time) {
	f.rightAt = asOf
	if !f.suspectAt.After(asOf) {
		f.suspectAt = time.Time{}
	}
	if !f.missedAt.After(asOf) {
		f.missedAt = time.Time{}
	}
}

// touched notes that the file may have changed at now, or, where events may have been missed, at any time since it was seen right.
func (f *file) touched(missed bool, now time.Time) {
	f.stale = true
	if f.suspectAt.IsZero() {
		f.suspectAt = now
	}
	if missed {
		f.missedAt = now
	}
	if !f.recovery.due(now) { // what has changed may be what was in its way
		f.recovery.at = earlier(f.recovery.at, now.Add(jitter.First))
	}
}

func (d *Daemon) recover(in *instance) {
	var err error
	ctx, f := d.ctx, &in.file
	d.onFile(in, actionRecover, &step{what: "recovery of the configuration file", bound: applyBound}, func() { err = in.Sink.Recover(ctx) })
	if err == nil {
		if f.recovery.isFailing() {
			in.log.Info("recovery after an earlier run is finished")
		}
		f.recovered, f.recovery = true, retry{}
	} else if ctx.Err() == nil { // else it was cut short by the stop, and tells nothing
		f.recovery.failed(in.log, time.Now(), err, report{"recovery after an earlier run is not finished", "correct what the reason says; an nlserver that hangs has to be ended"})
	}
}

func (d *Daemon) look(in *instance) {
	f, ctx, began, wanted := &in.file, d.ctx, time.Now(), in.record.Attributes
	f.stale = false
	var seen credential.Attributes
	var changedAt time.Time
	var owner string
	var err error
	d.onFile(in, actionLook, &step{what: "look at the configuration file", bound: fileBound}, func() {
		seen, err = in.Sink.Look(ctx)
		changedAt = in.Sink.ChangedAt() // after the look, so that it is not that of an earlier content
		if err == nil && len(credential.Drift(wanted, seen)) > 0 {
			owner = in.Sink.Owner()
		}
	})
	if ctx.Err() != nil {
		return // cut short by the stop, tells nothing
	}
	f.changedAt, f.owner = changedAt, owner
	d.onLook(in, seen, err, began, time.Now())
}

// restore looks, and reverts in one go what differs. Drift that is so old that an intent must be on record first is only looked at.
func (d *Daemon) restore(in *instance) {
	f, ctx, began, wanted := &in.file, d.ctx, time.Now(), in.record.Attributes
	f.stale = false
	var seen credential.Attributes
	var onlyLook bool
	var owner string
	var err error
	d.onFile(in, actionRestore, &step{what: "restore of the configuration file", bound: fileBound}, func() {
		changedAt := in.Sink.ChangedAt() // which may hang, and tells how old the drift is: so the decision comes in between
		d.lock.take()
		f.changedAt = changedAt
		onlyLook = in.mustRecordIntent(time.Now())
		d.unlock()
		if onlyLook {
			seen, err = in.Sink.Look(ctx)
		} else {
			seen, err = in.Sink.Restore(ctx, wanted)
		}
		if err == nil && len(credential.Drift(wanted, seen)) > 0 {
			owner = in.Sink.Owner() // which a revert keeps
		}
	})
	now := time.Now()
	changes := changesOf(wanted, seen)
	f.owner = owner
	switch {
	case seen == nil && ctx.Err() != nil: // cut short by the stop, tells nothing
	case onlyLook || seen == nil || (len(changes) == 0 && err == nil):
		d.onLook(in, seen, err, began, now)
	case err == nil:
		if !f.drifted { // else it is counted
			in.detected++
		}
		d.onRevert(in, now)
		d.onLook(in, wanted, nil, now, now)
		if d.cfg.Meter != nil {
			d.cfg.Meter.Reverted(now.Sub(began))
		}
		d.emitReverted(in, changes, now.Sub(began))
	default:
		d.onRevertFailed(in, seen, err, began, now)
	}
}

// onRevertFailed takes what a restore showed that began at began and could not revert the drift that it saw.
func (d *Daemon) onRevertFailed(in *instance, seen credential.Attributes, err error, began, now time.Time) {
	f := &in.file
	switch {
	case errors.Is(err, credential.ErrCannotSplice):
		d.onLook(in, seen, nil, began, now)
		f.cannotSplice = true
		switch {
		case !in.isSetByOthers():
			in.log.Warn("drift cannot be reverted by a splice, applying again instead", "reason", err)
		case !f.leftTold:
			in.log.Error(in.stuck(), "attribute", in.drift(), "reason", err)
		}
	default: // what failed may have been the last step of a revert that was done
		f.stale = true
		if changes := changesOf(in.record.Attributes, seen); len(changes) > 0 {
			f.unproved = changes
		}
		f.suspectAt = earlier(f.suspectAt, began)
		f.restore.failed(in.log, now, err, report{"drift not reverted", "let the daemon's user write the file and its directory, and make room there"})
		if in.mustRecordIntent(now) {
			d.recordIntent(in)
		}
	}
}

// onLook takes what a look showed that began at asOf.
func (d *Daemon) onLook(in *instance, seen credential.Attributes, err error, asOf, now time.Time) {
	f, r := &in.file, &in.record
	before, unusable := f.err, f.unusable()
	f.seen, f.err, f.checkedAt, f.lookAt = seen, err, now, time.Time{}
	if err != nil {
		f.suspectAt = earlier(f.suspectAt, asOf)
		if before == nil {
			f.errSince = now
			if errors.Is(err, credential.ErrBusy) { // the look itself has waited for the writer
				f.errSince = asOf
			}
		}
		f.lookAt = now.Add(min(max(lookFirst, now.Sub(f.errSince)), lookAgain))
		if f.unusable() {
			if reasonOfFile(err) == credential.ReasonFileUnreadable { // no writer is about to mend that
				err = credential.NeedsOperator(err)
			}
			f.trouble.Tell(in.log, now, err, "instance file unusable, not writing", "put the file back, or correct what the reason says")
		}
		return
	}
	f.trouble = trouble.Trouble{}
	if unusable {
		in.log.Info("instance file usable again")
	}
	// The command that was interrupted wrote nothing. Where nobody knows what was there before it, nobody can tell.
	if r.Applying != nil && len(r.Attributes) > 0 && len(credential.Drift(r.Attributes, seen)) == 0 {
		r.Applying = nil
		r.unsaved = true
	}
	if len(in.drift()) > 0 {
		if f.suspectAt = earlier(f.suspectAt, asOf); !f.drifted {
			f.drifted = true
			in.detected++
		}
		return
	}
	changes := f.unproved                                                         // not known of a killed daemon's revert
	reverted := len(changes) > 0 || (r.RevertOwesActivation && r.Applying == nil) // by a step that failed, a killed daemon, or somebody else
	if reverted {
		d.onRevert(in, now)
		in.log.Warn("drift reverted", "attribute", namesOf(changes), "change", wordsOf(changes))
	}
	f.seenRight(asOf)
	in.driftGone()
	if reverted {
		d.emit(in, event.Event{Kind: event.DriftReverted, Attributes: changes, Text: "the file was found reverted, by a step that was cut off or by somebody else"})
	}
	d.holdFirstApply(in, seen, now)
}

// onRevert counts a revert. One of drift that may have been loaded is followed by activation.
func (d *Daemon) onRevert(in *instance, now time.Time) {
	r := &in.record
	r.reverted(now)
	r.unsaved = true
	in.file.unproved = nil
	if r.RevertOwesActivation || in.file.mayHaveLoaded(now) {
		in.requireActivation(now)
	} else if d.activating != nil {
		in.activation.require(now) // the step under way may have read it
	}
}

// driftGone forgets what was tried against drift that is gone.
func (in *instance) driftGone() {
	f := &in.file
	f.drifted, f.unproved, f.cannotSplice, f.restore, f.leftTold = false, nil, false, retry{}, false
	if in.wanted.force == forDrift {
		in.wanted.force = notForced
	}
}

// stuck is why drift stays that a splice cannot revert.
func (in *instance) stuck() string {
	if in.isHeld() {
		return "drift not reverted: nlserver is not run while the first apply is held, and a splice cannot do it; correct the file, or run sync or adopt"
	}
	return "drift not reverted: nlserver is not run for a credential that was adopted, and a splice cannot do it; correct the file, or run adopt, " +
		"or write a new version of the secret"
}

// logDriftLeft logs and tells once that drift is not reverted.
func (d *Daemon) logDriftLeft(in *instance, now time.Time) {
	f, drift := &in.file, in.drift()
	if len(drift) == 0 || !d.mayWrite(in, now) {
		return
	}
	changes, left := changesOf(in.record.Attributes, f.seen), d.planRevert(in, now).left
	switch end := left.retryAt; {
	case left.reason == credential.ReasonDriftBrake:
		if end.Equal(f.brakeTold) || !in.record.saveEnded() { // it is told when it would survive a crash
			return
		}
		f.brakeTold = end
		in.log.Error("another program keeps changing the credential; drift is not reverted for now",
			"attribute", drift, "reason", "drift.max_reverts", "until", end.UTC(),
			"remedy", "find that program and stop it; then, to revert at once: systemctl reload campaign-credsync")
		d.emitDrift(in, event.Brake, changes, "drift is not reverted until "+end.UTC().Format(time.RFC3339))
	case left.reason == "" || f.leftTold:
	default:
		f.leftTold = true
		if left.reason == credential.ReasonDriftAlert { // else why it fails was logged
			in.log.Error("drift not reverted: drift.revert is alert", "attribute", drift, "change", wordsOf(changes),
				"remedy", "find out who changed it: campaign-credsync history; to keep the change, run adopt; to revert it, set drift.revert to splice and reload")
		}
		d.emitDrift(in, event.DriftLeft, changes, left.text)
	}
}
