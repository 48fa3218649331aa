package sync

import (
	"slices"
	"time"

	"campaign-credsync/internal/credential"
)

func (d *Daemon) advanceActivation(now time.Time) (again time.Time) {
	if d.activating || d.halting != haltNothing {
		return time.Time{}
	}
	views := make([]activationView, len(d.instances))
	for i, in := range d.instances {
		views[i] = activationView{
			steps: in.record.Activation, due: d.activationDue(in),
			unsaved:  !in.onRecord(),
			applying: in.busy == doApply || in.aboutToApply(now),
		}
	}
	step, forWhom, again := planActivation(now, views)
	if len(forWhom) > 0 {
		members := make([]*instance, len(forWhom))
		for i, k := range forWhom {
			members[i] = d.instances[k]
		}
		d.startActivation(step, members)
	}
	return again
}

// aboutToApply reports whether an apply begins as soon as the step under way is over.
func (in *instance) aboutToApply(now time.Time) bool {
	return in.pending != nil && !in.pending.same(in.record) && in.recovered && in.busy != doNothing && in.disk.err == nil && in.applyTry.due(now)
}

// activationDue tells when the activation of an instance may go on: with the schedule, and after a failure's wait.
func (d *Daemon) activationDue(in *instance) time.Time {
	due := in.activateTry.at
	if d.cfg.ActivateAt != nil && len(in.record.Activation) > 0 {
		if held := d.cfg.ActivateAt.Next(in.record.ActivationSince); held.After(due) {
			return held
		}
	}
	return due
}

// forgetSteps drops steps of activation that the configuration wants no more.
func (in *instance) forgetSteps() {
	left := slices.DeleteFunc(slices.Clone(in.record.Activation), func(step credential.Step) bool { return !slices.Contains(in.steps, step) })
	if len(left) == len(in.record.Activation) {
		return
	}
	in.record.Activation = left
	if len(left) == 0 {
		in.record.ActivatedAt = time.Now()
	}
	in.seq++
}
