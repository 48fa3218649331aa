package sync

import (
	"context"
	"errors"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// Each start… function begins a step in a goroutine of its own; the func that the goroutine returns is run by the loop
// and takes the outcome. Only these edges log what a step did.

func (d *Daemon) startRecover(in *instance) {
	in.busy = doRecover
	sink, ctx := in.Sink, d.work
	d.start(task{what: "recovery of the configuration file", of: []*instance{in}, bound: applyBound}, func() func(time.Time) {
		err := sink.Recover(ctx)
		return func(now time.Time) {
			in.busy = doNothing
			switch {
			case err == nil:
				in.recovered = true
				in.recoverTry = retry{}
				return
			case ctx.Err() != nil:
				return // cut short by the stop, tells nothing
			}
			news := in.recoverTry.fail(now, err.Error())
			d.warn(news, "recovery after an earlier run is not finished", keyInstance, in.Name, keyReason, err)
		}
	})
}

func (d *Daemon) startLook(in *instance) {
	in.busy = doLook
	in.disk.stale = false
	ctx := d.work
	d.start(task{what: "look at the configuration file", of: []*instance{in}, bound: fileBound}, func() func(time.Time) { return d.look(ctx, in, time.Now()) })
}

// look is run by a step.
func (d *Daemon) look(ctx context.Context, in *instance, began time.Time) func(time.Time) {
	seen, err := in.Sink.Look(ctx)
	changedAt := in.Sink.ChangedAt() // after the look, so that it is not that of an earlier content
	return func(now time.Time) {
		in.busy = doNothing
		if ctx.Err() != nil {
			return // cut short by the stop, tells nothing
		}
		in.disk.changedAt = changedAt
		d.looked(in, seen, err, began, now)
	}
}

// How a file that is missing or damaged is looked at again: an editor may be in the middle of its work.
const (
	lookFirst   = 20 * time.Millisecond
	lookGrace   = 300 * time.Millisecond // trouble that lasts longer is told
	lookTrouble = 10 * time.Second       // and looked at this often, should no event come
	lookHeld    = time.Second            // or this often when somebody has it open: no event tells of a close
)

// looked takes what a look told that began at asOf.
func (d *Daemon) looked(in *instance, seen credential.Attributes, err error, asOf, now time.Time) {
	in.looks++
	before := in.disk
	in.disk = disk{looked: true, stale: before.stale, seen: seen, err: err, checkedAt: now,
		rightAt: before.rightAt, suspectAt: before.suspectAt, missedAt: before.missedAt, changedAt: before.changedAt}
	if err != nil {
		in.disk.suspectAt = earlier(in.disk.suspectAt, asOf)
		d.lookFailed(in, before, err, now)
		return
	}
	if before.outOfOrder() {
		d.log.Info("instance file usable again", keyInstance, in.Name)
	}
	// What a command that was cut off has written is unknown only until the file shows that it wrote nothing.
	if in.record.Applying() && len(credential.Drift(in.record.Attributes, seen)) == 0 {
		r := in.record
		r.Intent = state.Intent{}
		in.changed(r, now)
	}
	drift := driftOf(in.record, seen)
	switch {
	case len(drift) == 0:
		switch {
		case len(in.unproved) > 0:
			d.countRevert(in, in.unproved, now, now)
		case in.record.Intent.Kind == state.IntentRevert: // put back by a daemon that was killed then, or by somebody else
			in.changed(in.owesActivation(in.record, now), now)
		}
		in.disk.seenRight(asOf)
		in.driftGone()
		return
	case d.cfg.Revert == RevertAlert && !in.alerted:
		in.alerted = true
		d.log.Error("drift not reverted: drift.revert is alert", keyInstance, in.Name, keyAttribute, drift)
	}
	in.disk.suspectAt = earlier(in.disk.suspectAt, asOf)
}

func (d *Daemon) lookFailed(in *instance, before disk, err error, now time.Time) {
	in.disk.troubleAt = now
	held := errors.Is(err, credential.ErrHeld)
	if before.err != nil {
		in.disk.troubleAt = before.troubleAt
	} else if held {
		in.disk.troubleAt = now.Add(-lookGrace) // the look itself has waited long enough
	}
	switch {
	case !in.disk.outOfOrder():
		in.disk.lookAt = now.Add(max(lookFirst, now.Sub(in.disk.troubleAt)))
		return
	case held:
		in.disk.lookAt = now.Add(lookHeld)
	default:
		in.disk.lookAt = now.Add(lookTrouble)
	}
	if !before.outOfOrder() || before.err.Error() != err.Error() {
		d.log.Error("instance file unusable, not writing", keyInstance, in.Name, keyReason, err)
	}
}

var errNotWritten = errors.New("the file holds the secret that was applied before: " +
	"nlserver wrote nothing, or another program wrote over it")

func (d *Daemon) startApply(in *instance) {
	in.busy = doApply
	p := *in.pending
	sink, store, name := in.Sink, d.cfg.Store, in.Name
	previous, intent := in.record.Intent, in.record
	intent.Intent = state.Intent{Kind: state.IntentApply, Version: p.version}
	// The intent is written here, ahead of the command, and the outcome by the loop: nobody else saves meanwhile.
	in.saving = true
	in.record = intent
	in.seq++
	seq := in.seq
	ctx := d.work
	d.start(task{what: "apply", of: []*instance{in}, bound: applyBound, commands: true}, func() func(time.Time) {
		if err := store.Save(name, intent); err != nil {
			return func(now time.Time) {
				in.busy, in.saving = doNothing, false
				in.record.Intent = previous
				d.applyFailed(in, p, err, now)
			}
		}
		attributes, took, err := sink.Apply(ctx, p.credential)
		if err == nil && showsAnother(intent, p, attributes) {
			err = errNotWritten
		}
		return func(now time.Time) {
			in.busy, in.saving = doNothing, false
			in.saved, in.saveRetry = max(in.saved, seq), retry{}
			// Events of our own command are behind us, but somebody else may have written meanwhile: look again.
			in.disk.stale = true
			if err != nil {
				// What an earlier command wrote is as unknown as before; what this one left is looked into by Recover.
				r := in.record
				r.Intent = previous
				in.changed(r, now)
				if !errors.Is(err, credential.ErrStillRunning) { // else nothing was begun
					in.recovered = false
				}
				if ctx.Err() == nil { // else it was called off by the stop before it began
					d.applyFailed(in, p, err, now)
				}
				return
			}
			d.applied(in, p, attributes, took, now)
		}
	})
}

func (d *Daemon) applied(in *instance, p pending, attributes credential.Attributes, took time.Duration, now time.Time) {
	r := applied(in.record, p, attributes, in.steps, now)
	in.becomesDue(now)
	if p.force == forceDrift {
		r = reverted(r, now)
	}
	in.changed(r, now)
	in.disk.seen, in.disk.err, in.disk.checkedAt = attributes, nil, now
	in.disk.seenRight(now)
	in.applyTry = retry{}
	in.driftGone()
	if in.pending != nil && in.pending.version.Equal(p.version) {
		in.pending = nil
	}
	in.served(p.force)
	if in.force == p.force {
		in.force = ""
	}
	attrs := []any{keyInstance, in.Name, keyVersion, p.version.Number, keyDuration, took}
	if p.force != "" {
		attrs = append(attrs, keyReason, p.force)
	}
	d.log.Info("credential applied", attrs...)
}

func (d *Daemon) applyFailed(in *instance, p pending, err error, now time.Time) {
	news := in.applyTry.fail(now, err.Error())
	level := d.warn
	if news {
		level = d.fail
	}
	level(news, "credential not applied", keyInstance, in.Name, keyVersion, p.version.Number,
		keyAttempt, in.applyTry.attempt, keyReason, err)
}

// startRestore looks and puts back what differs, in one go. What differs for so long that it must be on record first is only
// looked at.
func (d *Daemon) startRestore(in *instance, v view) {
	in.busy = doRestore
	in.disk.stale = false
	sink, ctx, wanted := in.Sink, d.finish, in.record.Attributes
	began := time.Now()
	d.start(task{what: "restore of the configuration file", of: []*instance{in}, bound: fileBound}, func() func(time.Time) {
		v.disk.changedAt, v.now = sink.ChangedAt(), time.Now()
		if v.mustOwe() {
			return d.look(ctx, in, began)
		}
		found, err := sink.Restore(ctx, wanted)
		return func(now time.Time) {
			in.busy = doNothing
			in.disk.changedAt = v.disk.changedAt
			drift := credential.Drift(wanted, found)
			switch {
			case err == nil && len(drift) == 0:
				d.looked(in, found, nil, began, now)
			case err == nil:
				d.restored(in, drift, began, now)
			case found == nil:
				d.looked(in, nil, err, began, now)
			default:
				d.restoreFailed(in, found, err, began, now)
			}
		}
	})
}

func (d *Daemon) restored(in *instance, drift []string, began, now time.Time) {
	d.countRevert(in, drift, began, now)
	in.unproved = nil
	d.looked(in, in.record.Attributes, nil, now, now)
}

// owesActivation is r with the steps of activation still to be done, also if one of them is under way.
func (in *instance) owesActivation(r state.Record, now time.Time) state.Record {
	in.becomesDue(now)
	return activationDue(r, in.steps, now)
}

// becomesDue has a step of activation that is under way count for nothing.
func (in *instance) becomesDue(now time.Time) {
	in.activations++
	in.dueSince = now
}

// countRevert notes a revert that began and is over.
func (d *Daemon) countRevert(in *instance, drift []string, began, now time.Time) {
	r, saveAt := reverted(in.record, now), now.Add(countDelay)
	if in.disk.mayHaveLoaded(now) || r.Intent.Kind == state.IntentRevert {
		r, saveAt = in.owesActivation(r, now), now
	} else if d.activating {
		in.becomesDue(now) // the step under way may have read it
	}
	if _, braked := brake(r, d.cfg.MaxReverts, now); braked {
		saveAt = now // told only when it is on disk: the brake must hold after a crash
	}
	in.changed(r, saveAt)
	d.log.Info("drift reverted", keyInstance, in.Name, keyAttribute, drift, keyDuration, now.Sub(began))
}

func (d *Daemon) restoreFailed(in *instance, found credential.Attributes, err error, began, now time.Time) {
	if errors.Is(err, credential.ErrCannotSplice) {
		d.looked(in, found, nil, began, now)
		in.cannotPut = true
		d.log.Warn("drift cannot be reverted by a splice, applying again instead", keyInstance, in.Name, keyReason, err)
		return
	}
	in.disk.stale = true
	in.disk.suspectAt = earlier(in.disk.suspectAt, began)
	in.unproved = credential.Drift(in.record.Attributes, found)
	news := in.restoreTry.fail(now, err.Error())
	d.warn(news, "drift not reverted", keyInstance, in.Name, keyAttempt, in.restoreTry.attempt, keyReason, err)
}

// recordSame notes that a new version holds the credential that is applied already.
func (d *Daemon) recordSame(in *instance, now time.Time) {
	r := in.record
	again := r.Version.Equal(in.pending.version)
	r.Fields = in.pending.fields
	if !again {
		r.Version = in.pending.version
	}
	in.pending = nil
	in.changed(r, now)
	if again { // by other names
		return
	}
	d.log.Info("new version holds the same credential, recorded", keyInstance, in.Name, keyVersion, r.Version.Number)
}

func (d *Daemon) startSave(in *instance) {
	in.saving = true
	store, name, record, seq := d.cfg.Store, in.Name, in.record, in.seq
	d.start(task{what: "save of the state", of: []*instance{in}, bound: fileBound}, func() func(time.Time) {
		err := store.Save(name, record)
		return func(now time.Time) {
			in.saving = false
			if err == nil {
				in.saved = max(in.saved, seq)
				in.saveRetry = retry{}
				return
			}
			news := in.saveRetry.fail(now, err.Error())
			d.fail(news, "state not saved", keyInstance, in.Name, keyReason, err)
		}
	})
}

func (d *Daemon) startActivation(step credential.Step, members []*instance) {
	d.activating = true
	ctx, activator := d.finish, d.cfg.Activator
	began := time.Now()
	asked := make([]int, len(members))
	var since time.Time
	for i, in := range members {
		asked[i] = in.activations
		if in.dueSince.After(since) {
			since = in.dueSince
		}
	}
	d.start(task{what: "activation, " + step.String(), of: members, bound: fileBound, commands: true}, func() func(time.Time) {
		err := activator.Activate(ctx, step, since)
		return func(now time.Time) {
			d.activating = false
			if errors.Is(err, context.Canceled) {
				return // cut short by the stop, tells nothing; what is due is on record
			}
			var later interface{ RetryAt() time.Time }
			for i, in := range members {
				if err != nil {
					news := in.activateTry.fail(now, err.Error())
					if errors.As(err, &later) {
						in.activateTry.at = later.RetryAt()
					}
					d.fail(news, "credential not activated", keyInstance, in.Name, keyStep, step.String(),
						keyAttempt, in.activateTry.attempt, keyReason, err)
					continue
				}
				in.activateTry = retry{}
				if in.activations != asked[i] {
					continue // drift was put back meanwhile, which this step may have loaded: it is due again
				}
				in.changed(activated(in.record, step, now), now)
				d.log.Info("activated", keyInstance, in.Name, keyStep, step.String(), keyVersion, in.record.Version.Number,
					keyDuration, now.Sub(began))
			}
		}
	})
}

// sayBrake tells once that the brake stopped reverts, and once that it let go.
func (d *Daemon) sayBrake(in *instance, drift []string, now time.Time) {
	end, on := brake(in.record, d.cfg.MaxReverts, now)
	switch {
	case !on && in.braked:
		in.braked = false
		d.log.Info("drift is reverted again", keyInstance, in.Name)
	case on && !in.braked && len(drift) > 0 && d.cfg.Revert != RevertAlert && in.onRecord():
		in.braked = true
		d.log.Error("another program keeps changing the credential; drift is not reverted for now",
			keyInstance, in.Name, keyAttribute, drift, keyReason, "drift.max_reverts", keyUntil, end.UTC())
	}
}

// onRecord reports whether what is remembered is on disk, or cannot be brought there.
func (in *instance) onRecord() bool { return in.saved == in.seq || in.saveRetry.failed() }

// driftGone forgets what was tried against drift that is no more.
func (in *instance) driftGone() {
	in.cannotPut, in.alerted, in.unproved = false, false, nil
	in.restoreTry = retry{}
	if in.force == forceDrift {
		in.force = ""
	}
	if in.pending != nil && in.pending.force == forceDrift && in.pending.version.Equal(in.record.Version) {
		in.pending = nil
	}
	in.served(forceDrift)
}

// served forgets why what is pending had to be applied although it is applied already: that was done meanwhile.
func (in *instance) served(force string) {
	if in.pending != nil && in.pending.force == force {
		p := *in.pending // a poll under way reads the old one
		p.force = ""
		in.pending = &p
	}
}

// warn logs a failure that is retried: news as a warning, the same again for debugging only.
func (d *Daemon) warn(news bool, msg string, attrs ...any) {
	if news {
		d.log.Warn(msg, attrs...)
		return
	}
	d.log.Debug(msg, attrs...)
}

// fail logs a failure that a person should see, once.
func (d *Daemon) fail(news bool, msg string, attrs ...any) {
	if news {
		d.log.Error(msg, attrs...)
		return
	}
	d.log.Debug(msg, attrs...)
}
