package sync

import (
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// record is what is remembered of an instance, and how much of that is on disk. Whoever changes it sets unsaved.
type record struct {
	state.Record
	unsaved bool      // there are changes that no save has taken
	saveAt  time.Time // so long they may wait; zero: not at all
	saving  bool
	retry   retry
}

// recordFor returns what is remembered for the configuration file called file. Where r is of another file, that is only what is of no file,
// but of the instance: attributes of the one must not get into the other, which is as at a first start.
func recordFor(file string, r state.Record) (of state.Record, another bool) {
	if another = r.ConfigFile != "" && r.ConfigFile != file; another {
		r = state.Record{Paused: r.Paused, ProbeNotBefore: r.ProbeNotBefore, RevertedTotal: r.RevertedTotal}
	}
	r.ConfigFile = file
	return r, another
}

// takeFile has what is remembered be of the instance's file.
func (in *instance) takeFile() {
	r, was := &in.record, in.record.ConfigFile
	// An old record gets its file's name now: it may not be saved again before that changes.
	r.unsaved = r.unsaved || (was != in.File && r.Format != 0)
	var another bool
	if r.Record, another = recordFor(in.File, r.Record); !another {
		return
	}
	r.unsaved, r.saveAt = true, time.Time{}
	in.activation = activation{}
	in.wanted.refusal, in.wanted.force, in.wanted.retry = nil, notForced, retry{} // by what was applied to the other file
	in.log.Warn("config_file is another one than before; nothing that is remembered of the other is used: as at a first start",
		"path", in.File, "before", was, "remedy", "if the credential in it is right, run adopt; to apply the source's, run sync")
}

// saveEnded reports whether what is remembered is on disk, or cannot be saved for now.
func (r *record) saveEnded() bool { return (!r.unsaved && !r.saving) || r.retry.isFailing() }

// NotSavedRemedy is what to do where a record is not saved.
const NotSavedRemedy = "make room for state_dir, and let the daemon's user write there"

// savePatience is how long a revert waits for the record of its intent: guarding the file must not hang with another disk.
const savePatience = 2 * time.Second

// recordIntent has it on record that a revert is about to be made, which activation must follow.
func (d *Daemon) recordIntent(in *instance) {
	now, r := time.Now(), &in.record
	r.RevertOwesActivation = true
	r.unsaved, r.saveAt = true, time.Time{}
	d.wake(in)
	for until := now.Add(savePatience); !r.saveEnded() && time.Now().Before(until) && d.phase < ended; {
		d.wait(until, &in.news, nil)
	}
}

// keepSaved saves a changed record when it is time.
func (d *Daemon) keepSaved(in *instance) {
	for r := &in.record; d.phase < ended; {
		switch {
		case r.saving || !r.unsaved || d.phase == drained:
			d.wait(time.Time{}, &in.news, nil)
		case time.Now().Before(later(r.saveAt, r.retry.at)):
			d.wait(later(r.saveAt, r.retry.at), &in.news, nil)
		default:
			d.save(in)
		}
	}
}

func (d *Daemon) save(in *instance) {
	r := &in.record
	r.unsaved, r.saving, r.saveAt = false, true, time.Time{}
	copied := r.Record
	var err error
	d.do(&step{what: "save of the state", of: []*instance{in}, bound: fileBound}, func() { err = d.cfg.Store.Save(in.Name, copied) })
	r.saving = false
	if err != nil {
		r.unsaved = true
		r.retry.failed(in.log, time.Now(), err, report{"state not saved", NotSavedRemedy})
		return
	}
	if r.retry.isFailing() {
		in.log.Info("state saved again")
	}
	r.retry = retry{}
}

// activated notes the end of the steps for which done holds.
func (r *record) activated(done func(credential.Step) bool, now time.Time) {
	if !slices.ContainsFunc(r.Activation, done) {
		return
	}
	if r.Activation = slices.DeleteFunc(slices.Clone(r.Activation), done); len(r.Activation) == 0 {
		r.ActivatedAt, r.ActivatedVersion = now, r.Version.Number
	}
	r.unsaved = true
}

// countDelay is how long counts of reverts are gathered before they are saved: the disk is wanted for the next revert.
const countDelay = 100 * time.Millisecond

// reverted counts a revert.
func (r *record) reverted(now time.Time) {
	if !r.unsaved {
		r.saveAt = now.Add(countDelay)
	}
	old := func(t time.Time) bool { return !recent(t, now) }
	r.Reverts = append(slices.DeleteFunc(slices.Clone(r.Reverts), old), now)
	r.RevertedTotal++
}

// revertWindow is the time over which reverts count for the brake.
const revertWindow = time.Hour

// brake reports whether reverts have used up their allowance, and until when.
func (r *record) brake(maxReverts int, now time.Time) (end time.Time, on bool) {
	counted := 0
	for _, t := range slices.Backward(r.Reverts) {
		if recent(t, now) {
			counted++
		}
		if counted == maxReverts {
			return t.Add(revertWindow), true
		}
	}
	return time.Time{}, false
}

// recent reports whether a revert counts. One that is further than an hour in the future was stamped by a clock that has been set
// back since.
func recent(revert, now time.Time) bool { return now.Sub(revert).Abs() < revertWindow }
