package sync

import (
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// view is all that the decision about one instance depends on.
type view struct {
	now    time.Time
	record state.Record

	recovered bool // what an earlier daemon left behind was dealt with
	disk      disk
	pending   *pending // delivered by the source and not applied yet

	mode       RevertMode
	maxReverts int
	cannotPut  bool // a splice was tried for this drift and cannot work
	activating bool // an activation is running, so that no apply may start
	saving     bool // the record is being written, so that no intent may be
	activates  bool // there are processes to be told

	recoverRetry, applyRetry, restoreRetry time.Time
	recordWait                             time.Time // until then a change of the record is waited for that is not on disk yet
}

// disk is what the last look at the configuration file told.
type disk struct {
	looked    bool // at least once
	stale     bool // something may have happened since
	seen      credential.Attributes
	err       error     // of the last look; seen is then of no use
	troubleAt time.Time // first of the looks in a row that ended in err
	lookAt    time.Time // look again then at the latest; zero = no need
	checkedAt time.Time // last look, whatever it told
	rightAt   time.Time // last look that saw no drift

	// What tells since when there may be drift. The first two are zero when there was none of it after rightAt.
	suspectAt time.Time // first event, or first look that did not see the file right
	missedAt  time.Time // events may have been missed, or nobody was there to take them
	changedAt time.Time // change time of the file at the last look
}

// driftSince tells since when drift may be on disk, if there is any now. Zero: nobody knows.
func (d disk) driftSince(now time.Time) time.Time {
	trusted := d.missedAt.IsZero() && d.changedAt.After(d.rightAt) && !d.changedAt.After(now)
	if d.rightAt.IsZero() || !trusted {
		return d.rightAt
	}
	return earlier(d.suspectAt, d.changedAt)
}

// seenRight notes a look that began at asOf and saw no drift.
func (d *disk) seenRight(asOf time.Time) {
	d.rightAt = asOf
	if !d.suspectAt.After(asOf) {
		d.suspectAt = time.Time{}
	}
	if !d.missedAt.After(asOf) {
		d.missedAt = time.Time{}
	}
}

// pending is a credential that waits to be applied.
type pending struct {
	version      credential.Version
	fields       credential.Fields // that it was picked by
	credential   credential.Credential
	digest       string // keyed
	secretDigest string // of the secret alone
	force        string // reason to apply it all the same; empty = none
}

// outOfOrder reports trouble that outlasted the work of an editor.
func (d disk) outOfOrder() bool {
	return d.err != nil && d.checkedAt.Sub(d.troubleAt) >= lookGrace
}

// same reports whether p is the credential that is applied already, under another version. It is asked anew each time:
// an apply may have come in between.
func (p *pending) same(r state.Record) bool { return !r.Version.IsZero() && p.digest == r.Digest }

type deed int

const (
	doNothing deed = iota
	doRecover
	doLook
	doApply
	doRestore
	doRecord // of a new version with the same credential
	doFetch  // ask the source for the credential, to put drift back with it
	doOwe    // record that the revert to come must be followed by activation
)

// decision is the answer: a deed for now, or else the time at which the question must be asked again even if nothing
// happens until then (zero: none).
type decision struct {
	deed  deed
	drift []string // names of the attributes that differ
	again time.Time
}

// plan decides what is to be done about one instance. It is a pure function.
func plan(v view) decision {
	if !v.recovered {
		return when(v.now, v.recoverRetry, decision{deed: doRecover})
	}
	if !v.disk.looked || v.disk.stale || !v.disk.lookAt.IsZero() && !v.now.Before(v.disk.lookAt) {
		if v.mayRestore() {
			return decision{deed: doRestore} // which looks, too
		}
		return decision{deed: doLook}
	}
	if v.disk.err != nil {
		// Missing or damaged: nothing is written until it is whole again.
		return decision{again: v.disk.lookAt}
	}
	drift := driftOf(v.record, v.disk.seen)
	if p := v.pending; p != nil {
		if p.same(v.record) && p.force == "" && !v.record.Applying() {
			return decision{deed: doRecord, drift: drift}
		}
		if !v.now.Before(v.applyRetry) && !v.activating && !v.saving {
			return decision{deed: doApply, drift: drift}
		}
		// It has to wait, and an apply that failed may have damaged what worked: what was applied before goes back meanwhile.
	}
	d := planRevert(v, drift)
	if v.pending != nil && v.now.Before(v.applyRetry) {
		d.again = earlier(d.again, v.applyRetry)
	}
	return d
}

// mayRestore reports whether drift, should a look find any, is to be put back by a splice.
func (v view) mayRestore() bool {
	_, braked := brake(v.record, v.maxReverts, v.now)
	return v.mode == RevertSplice && !braked && !v.cannotPut && !v.record.Applying() && len(v.record.Attributes) > 0 &&
		!v.now.Before(v.restoreRetry)
}

// owes reports whether it is recorded that a revert was begun.
func (v view) owes() bool { return v.record.Intent.Kind == state.IntentRevert }

// mustOwe reports whether a revert has to wait until it is on record that activation must follow it: a crash in between
// would leave the processes with drift that no start finds any more.
func (v view) mustOwe() bool {
	return v.activates && v.disk.mayHaveLoaded(v.now) && (!v.owes() || v.now.Before(v.recordWait))
}

func planRevert(v view, drift []string) decision {
	if len(drift) == 0 || v.mode == RevertAlert {
		return decision{drift: drift}
	}
	if end, on := brake(v.record, v.maxReverts, v.now); on {
		return decision{drift: drift, again: end}
	}
	if v.mode == RevertSplice && !v.cannotPut && v.mustOwe() {
		if v.owes() {
			return decision{drift: drift, again: v.recordWait}
		}
		return decision{deed: doOwe, drift: drift}
	}
	if v.mode == RevertSplice && !v.cannotPut {
		return when(v.now, v.restoreRetry, decision{deed: doRestore})
	}
	if v.pending != nil {
		return decision{drift: drift} // its apply is what puts the drift back
	}
	return decision{deed: doFetch, drift: drift}
}

// driftOf names the managed attributes that differ on disk from what was applied. While nobody knows what a command
// that was cut off has written, nothing is called drift: it may be the newer credential.
func driftOf(r state.Record, seen credential.Attributes) []string {
	if r.Applying() {
		return nil
	}
	return credential.Drift(r.Attributes, seen)
}

// brake reports whether reverts have used up their allowance, and until when.
func brake(r state.Record, maxReverts int, now time.Time) (end time.Time, on bool) {
	recent := recentReverts(r.Reverts, now)
	if len(recent) < maxReverts {
		return time.Time{}, false
	}
	return recent[len(recent)-maxReverts].Add(revertWindow), true
}

// longDrift is the age from which on Campaign's processes may have read the drift.
const longDrift = 2 * time.Second

// mayHaveLoaded reports whether the processes may have read the drift that is on disk until now. Change times are of the clock
// on the wall; one that was set back counts as long.
func (d disk) mayHaveLoaded(now time.Time) bool {
	since := d.driftSince(now)
	age := now.Round(0).Sub(since.Round(0))
	return since.IsZero() || age < 0 || age > longDrift
}

// when returns d if its time has come, else the wait for it.
func when(now, at time.Time, d decision) decision {
	if now.Before(at) {
		return decision{drift: d.drift, again: at}
	}
	return d
}

// earlier returns the earlier of two times of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// activationView is what the decision about activation depends on, of one instance.
type activationView struct {
	steps    []credential.Step // still to be done, in order
	due      time.Time         // held until then (schedule or retry)
	unsaved  bool              // the record that says so is not on disk yet
	applying bool              // or about to
}

// planActivation picks the next step of activation and the instances (by index) it is done for. While any instance is
// being applied it waits, so that one reload serves all that are applied together.
func planActivation(now time.Time, instances []activationView) (step credential.Step, forWhom []int, again time.Time) {
	for _, in := range instances {
		if in.applying || in.unsaved && len(in.steps) > 0 {
			return credential.Step{}, nil, time.Time{} // asked again when the apply or the write is over
		}
	}
	for i, in := range instances {
		switch {
		case len(in.steps) == 0:
			continue
		case now.Before(in.due):
			again = earlier(again, in.due)
			continue
		case step == credential.Step{}:
			step = in.steps[0]
		}
		for _, s := range in.steps {
			if s == step {
				forWhom = append(forWhom, i)
				break
			}
		}
	}
	return step, forWhom, again
}

// wantsSecret says whether the secret of a version must be read for an instance, given what is known of it.
func wantsSecret(v credential.Version, fields credential.Fields, r state.Record, p *pending, refused *credential.Refusal, force string, allowRollback bool) bool {
	switch {
	case p != nil && p.version.Equal(v) && p.force == force:
		return false // in hand already
	case refused != nil && refused.Version.Equal(v):
		return false // would be refused again
	case goesBack(v, r, p, allowRollback):
		return false
	case force != "" || r.Applying():
		return true
	}
	return !holds(r, v, fields)
}

// goesBack reports whether v is older than what is applied or about to be.
func goesBack(v credential.Version, r state.Record, p *pending, allowed bool) bool {
	if allowed {
		return false
	}
	return v.GoesBackFrom(r.Version) || p != nil && v.GoesBackFrom(p.version)
}
