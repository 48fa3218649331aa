package sync

import (
	"errors"
	"log/slog"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// file is what is known of the configuration file.
type file struct {
	recovered bool // what an earlier daemon, or an apply that failed, left is settled
	recovery  retry

	looks     int                   // that have ended
	stale     bool                  // something may have happened since the last look
	seen      credential.Attributes // by the last look
	err       error                 // of the last look; seen is then of no use
	troubleAt time.Time             // first of the looks in a row that ended in err
	lookAt    time.Time             // look again then at the latest; zero = no need
	checkedAt time.Time             // last look, whatever it told

	// What tells since when there may be drift. suspectAt and missedAt are zero when there was none of it after rightAt.
	rightAt   time.Time // last look that saw no drift
	suspectAt time.Time // first event, or first look that did not see the file right
	missedAt  time.Time // events may have been missed, or nobody was there to take them
	changedAt time.Time // change time of the file at the last look

	restore      retry
	unproved     []string // drift that a revert which failed may have reverted all the same
	cannotSplice bool     // a splice was tried for this drift and cannot work
	logged       driftLogged
}

// driftLogged is what was logged of the drift that is on disk.
type driftLogged int

const (
	driftNotLogged driftLogged = iota
	alertLogged
	brakeLogged
)

// How a file that is missing or damaged is looked at again: an editor may be in the middle of its work.
const (
	lookFirst   = 20 * time.Millisecond
	lookGrace   = 300 * time.Millisecond // trouble that lasts longer is logged
	lookTrouble = 10 * time.Second       // and looked at this often, should no event come
	lookHeld    = time.Second            // or this often when somebody has it open: no event tells of a close
)

// longDrift is the age from which on Campaign's processes may have read the drift.
const longDrift = 2 * time.Second

// countDelay is how long a change that only counts reverts may wait for its save, so that a burst is not slowed down.
const countDelay = 100 * time.Millisecond

// unusable reports trouble that outlasted the work of an editor.
func (f *file) unusable() bool { return f.err != nil && f.checkedAt.Sub(f.troubleAt) >= lookGrace }

// mayHaveLoaded reports whether the processes may have read the drift that is on disk until now. Change times are of the wall clock;
// one that was set back counts as long.
func (f *file) mayHaveLoaded(now time.Time) bool {
	since := f.driftSince(now)
	age := now.Round(0).Sub(since.Round(0))
	return since.IsZero() || age < 0 || age > longDrift
}

// driftSince tells since when drift may be on disk, if there is any now. Zero: nobody knows.
func (f *file) driftSince(now time.Time) time.Time {
	trusted := f.missedAt.IsZero() && f.changedAt.After(f.rightAt) && !f.changedAt.After(now)
	if f.rightAt.IsZero() || !trusted {
		return f.rightAt
	}
	return earlier(f.suspectAt, f.changedAt)
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

// touched notes an event of the file.
func (f *file) touched(missed bool, now time.Time) {
	f.stale = true
	if f.suspectAt.IsZero() {
		f.suspectAt = now
	}
	if missed {
		f.missedAt = now
	}
	if !f.recovery.due(now) { // what has changed may be what was in its way
		f.recovery.at = earlier(f.recovery.at, now.Add(firstRetry))
	}
}

func (d *Daemon) recover(in *instance) {
	var err error
	ctx, f := d.work, &in.file
	d.onFile(in, actionRecover, step{what: "recovery of the configuration file", bound: applyBound}, func() { err = in.Sink.Recover(ctx) })
	if err == nil {
		f.recovered, f.recovery = true, retry{}
	} else if ctx.Err() == nil { // else it was cut short by the stop, and tells nothing
		d.failed(&f.recovery, time.Now(), err, slog.LevelWarn, "recovery after an earlier run is not finished", keyInstance, in.Name)
	}
}

// look looks, or looks and reverts in one go (actionRestore). Drift that is so old that an intent must be on record first is only looked
// at.
func (d *Daemon) look(in *instance, what action) {
	in.file.stale = false
	s, began, ctx, name := in.situation, time.Now(), d.work, "look at the configuration file"
	restore := what == actionRestore
	if restore {
		ctx, name = d.finish, "restore of the configuration file"
	}
	var seen credential.Attributes
	var err error
	d.onFile(in, what, step{what: name, bound: fileBound}, func() {
		if restore {
			s.file.changedAt = in.Sink.ChangedAt()
			restore = !s.mustRecordIntent(time.Now())
		}
		if restore {
			seen, err = in.Sink.Restore(ctx, s.record.Attributes)
		} else {
			seen, err = in.Sink.Look(ctx)
			s.file.changedAt = in.Sink.ChangedAt() // after the look, so that it is not that of an earlier content
		}
	})
	if !restore && ctx.Err() != nil {
		return // cut short by the stop, tells nothing
	}
	now := time.Now()
	in.file.changedAt = s.file.changedAt
	drift := credential.Drift(s.record.Attributes, seen)
	switch {
	case !restore || seen == nil || len(drift) == 0 && err == nil:
		d.onLook(in, seen, err, began, now)
	case err == nil:
		d.onRevert(in, drift, began, now)
		d.onLook(in, in.record.Attributes, nil, now, now)
	case errors.Is(err, credential.ErrCannotSplice):
		d.onLook(in, seen, nil, began, now)
		in.file.cannotSplice = true
		d.log.Warn("drift cannot be reverted by a splice, applying again instead", keyInstance, in.Name, keyReason, err)
	default:
		d.revertFailed(in, drift, err, began, now)
	}
}

// onLook takes what a look told that began at asOf.
func (d *Daemon) onLook(in *instance, seen credential.Attributes, err error, asOf, now time.Time) {
	f, r := &in.file, &in.record
	before, unusable := f.err, f.unusable()
	f.looks++
	f.seen, f.err, f.checkedAt, f.lookAt = seen, err, now, time.Time{}
	if err != nil {
		f.suspectAt = earlier(f.suspectAt, asOf)
		d.lookFailed(in, before, unusable, now)
		return
	}
	if unusable {
		d.log.Info("instance file usable again", keyInstance, in.Name)
	}
	if r.Applying() && len(credential.Drift(r.Attributes, seen)) == 0 { // the command that was interrupted wrote nothing
		r.Intent = state.Intent{}
		r.changed(now)
	}
	if len(in.drift()) > 0 {
		f.suspectAt = earlier(f.suspectAt, asOf)
		if d.cfg.Revert == RevertAlert && f.logged != alertLogged {
			f.logged = alertLogged
			d.log.Error("drift not reverted: drift.revert is alert", keyInstance, in.Name, keyAttribute, in.drift())
		}
		return
	}
	if len(f.unproved) > 0 {
		d.onRevert(in, f.unproved, asOf, now)
	} else if in.intends(state.IntentRevert) { // done by a daemon that was killed then, or by somebody else
		r.reverted(now)
		d.activationDue(in, now)
		r.changed(now)
	}
	f.seenRight(asOf)
	in.driftGone()
}

func (d *Daemon) lookFailed(in *instance, before error, wasUnusable bool, now time.Time) {
	f := &in.file
	held := errors.Is(f.err, credential.ErrHeld)
	switch {
	case before != nil: // since then
	case held:
		f.troubleAt = now.Add(-lookGrace) // the look itself has waited long enough
	default:
		f.troubleAt = now
	}
	switch {
	case !f.unusable():
		f.lookAt = now.Add(max(lookFirst, now.Sub(f.troubleAt)))
		return
	case held:
		f.lookAt = now.Add(lookHeld)
	default:
		f.lookAt = now.Add(lookTrouble)
	}
	if !wasUnusable || before.Error() != f.err.Error() {
		d.log.Error("instance file unusable, not writing", keyInstance, in.Name, keyReason, f.err)
	}
}

// onRevert counts a revert that began and is over. One of drift that may have been loaded is followed by activation.
func (d *Daemon) onRevert(in *instance, drift []string, began, now time.Time) {
	r, saveAt := &in.record, now.Add(countDelay)
	r.reverted(now)
	in.file.unproved = nil
	if in.file.mayHaveLoaded(now) || in.intends(state.IntentRevert) {
		d.activationDue(in, now)
		saveAt = now
	} else if d.activating {
		in.told.due(now) // the step under way may have read it
	}
	if _, braked := r.brake(d.cfg.MaxReverts, now); braked {
		saveAt = now // logged only when it is on disk: the brake must hold after a crash
	}
	r.changed(saveAt)
	d.log.Info("drift reverted", keyInstance, in.Name, keyAttribute, drift, keyDuration, now.Sub(began))
}

// revertFailed has the file looked at again: what failed may have been the last step of a revert that was done.
func (d *Daemon) revertFailed(in *instance, drift []string, err error, began, now time.Time) {
	f := &in.file
	f.stale = true
	f.suspectAt = earlier(f.suspectAt, began)
	f.unproved = drift
	d.failed(&f.restore, now, err, slog.LevelWarn, "drift not reverted", keyInstance, in.Name)
	if in.mustRecordIntent(now) {
		d.recordIntent(in)
	}
}

// driftGone forgets what was tried against drift that is gone.
func (in *instance) driftGone() {
	f := &in.file
	f.cannotSplice, f.restore, f.unproved = false, retry{}, nil
	if f.logged == alertLogged {
		f.logged = driftNotLogged
	}
	if in.wanted.reason == forDrift {
		in.wanted.reason = notForced
	}
}

// logBrake logs once that the brake stopped reverts, and once that it released them.
func (d *Daemon) logBrake(in *instance, drift []string, now time.Time) {
	end, on := in.record.brake(d.cfg.MaxReverts, now)
	switch {
	case !on && in.file.logged == brakeLogged:
		in.file.logged, d.changed = driftNotLogged, true
		d.log.Info("drift is reverted again", keyInstance, in.Name)
	case on && in.file.logged == driftNotLogged && len(drift) > 0 && d.cfg.Revert != RevertAlert && in.record.settled():
		in.file.logged, d.changed = brakeLogged, true
		d.log.Error("another program keeps changing the credential; drift is not reverted for now",
			keyInstance, in.Name, keyAttribute, drift, keyReason, "drift.max_reverts", keyUntil, end.UTC())
	}
}
