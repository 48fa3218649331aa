package sync

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// record is what is remembered of an instance, and how much of that is on disk. Who changes it calls changed.
type record struct {
	state.Record
	changes, saved int       // changes made, changes on disk
	due            time.Time // when those that are not saved have to be
	saving         bool
	retry          retry
}

// changed notes a change, to be on disk by at.
func (r *record) changed(at time.Time) {
	if r.saved == r.changes || at.Before(r.due) {
		r.due = at
	}
	r.changes++
}

// settled reports whether what is remembered is on disk, or cannot be saved for now.
func (r *record) settled() bool { return r.saved == r.changes || r.retry.failed() }

// savePatience is how long a revert waits for the record of its intent: guarding the file must not hang with another disk.
const savePatience = 2 * time.Second

// recordIntent has it on record that a revert is about to be made, which activation must follow.
func (d *Daemon) recordIntent(in *instance) {
	now, r := time.Now(), &in.record
	r.Intent = state.Intent{Kind: state.IntentRevert}
	r.changed(now)
	d.tell()
	for until := now.Add(savePatience); !r.settled() && time.Now().Before(until) && !d.ended; {
		d.wait(until, nil)
	}
}

// keepSaved saves a changed record when it is due.
func (d *Daemon) keepSaved(in *instance) {
	for r := &in.record; d.work.Err() == nil; {
		at := later(r.due, r.retry.at)
		switch {
		case r.saving || r.saved == r.changes:
			d.wait(time.Time{}, nil)
		case time.Now().Before(at):
			d.wait(at, nil)
		default:
			d.save(in)
		}
	}
}

func (d *Daemon) save(in *instance) {
	r := &in.record
	r.saving = true
	copied, changes := r.Record, r.changes
	var err error
	d.do(step{what: "save of the state", of: []*instance{in}, bound: fileBound}, func() { err = d.cfg.Store.Save(in.Name, copied) })
	r.saving = false
	if err != nil {
		d.failed(&r.retry, time.Now(), err, slog.LevelError, "state not saved", keyInstance, in.Name)
		return
	}
	r.savedUpTo(changes)
}

func (r *record) savedUpTo(changes int) {
	r.saved, r.retry = max(r.saved, changes), retry{}
}

// holds reports whether what is applied was picked from v by fields. Under other names the same version is another credential.
func (r *record) holds(v credential.Version, fields credential.Fields) bool {
	return v.Equal(r.Version) && (len(r.Fields) == 0 || maps.Equal(r.Fields, fields))
}

// drift names the managed attributes that differ on disk from what was applied. While nobody knows what an interrupted command has
// written, nothing is called drift: it may be the newer credential.
func (r *record) drift(seen credential.Attributes) []string {
	if r.Applying() {
		return nil
	}
	return credential.Drift(r.Attributes, seen)
}

// applied notes an apply: version, digest, attributes and the activation that is due reach the disk in one write.
func (r *record) applied(p *pending, attributes credential.Attributes, steps []credential.Step, now time.Time) {
	r.Version, r.Fields, r.Digest, r.SecretDigest = p.version, p.fields, p.digest, p.secretDigest
	r.Attributes, r.AppliedAt = attributes, now
	r.activationDue(steps, now)
}

// activationDue notes that all steps have to be done, and that the outcome of what was begun is known.
func (r *record) activationDue(steps []credential.Step, now time.Time) {
	if len(r.Activation) == 0 {
		r.ActivationSince = now // else it goes on waiting for the time it has been waiting for
	}
	r.Activation, r.Intent = steps, state.Intent{}
	if len(steps) == 0 {
		r.ActivatedAt = now
	}
}

// activated notes the end of the steps for which done holds.
func (r *record) activated(done func(credential.Step) bool, now time.Time) {
	if !slices.ContainsFunc(r.Activation, done) {
		return
	}
	if r.Activation = slices.DeleteFunc(slices.Clone(r.Activation), done); len(r.Activation) == 0 {
		r.ActivatedAt = now
	}
	r.changed(now)
}

// reverted counts a revert.
func (r *record) reverted(now time.Time) {
	recent := append(r.recentReverts(now), now)
	r.Reverts = recent[max(0, len(recent)-rememberedReverts):]
	r.RevertedTotal++
}

const (
	// rememberedReverts bounds the record, which is written whole. With a greater drift.max_reverts there is no brake.
	rememberedReverts = 10000
	// revertWindow is the time over which reverts count for the brake.
	revertWindow = time.Hour
)

// brake reports whether reverts have used up their allowance, and until when.
func (r *record) brake(maxReverts int, now time.Time) (end time.Time, on bool) {
	recent := r.recentReverts(now)
	if len(recent) < maxReverts {
		return time.Time{}, false
	}
	return recent[len(recent)-maxReverts].Add(revertWindow), true
}

// recentReverts returns a fresh slice of those within the last hour. One that is further than that in the future was stamped by a
// clock that has been set back since.
func (r *record) recentReverts(now time.Time) []time.Time {
	recent := make([]time.Time, 0, len(r.Reverts)+1)
	for _, t := range r.Reverts {
		if now.Sub(t).Abs() < revertWindow {
			recent = append(recent, t)
		}
	}
	return recent
}
