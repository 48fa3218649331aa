package sync

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
)

// activationState is how far the running processes are told of what is on disk. What is still to be done stands in the record.
type activationState struct {
	retry  retry
	dueAt  time.Time // when it became due last
	repeat bool      // it became due again while a step was under way, which counts for nothing
}

func (a *activationState) due(now time.Time) { a.dueAt, a.repeat = now, true }

// activationDue has all steps done, also if one of them is under way.
func (d *Daemon) activationDue(in *instance, now time.Time) {
	in.record.activationDue(in.steps, now)
	in.told.due(now)
}

// forgetSteps drops steps of activation that the configuration does not want any more.
func (in *instance) forgetSteps(now time.Time) {
	in.record.activated(func(s credential.Step) bool { return !slices.Contains(in.steps, s) }, now)
}

// keepActivated tells the processes when it is due.
func (d *Daemon) keepActivated() {
	for d.work.Err() == nil {
		var again time.Time
		if !d.halted {
			s, members, at := d.planActivation(time.Now())
			if len(members) > 0 {
				d.activate(s, members)
				continue
			}
			again = at
		}
		d.wait(again, nil)
	}
}

// planActivation picks the next step and the instances that it is done for. It waits while any instance is being applied, or is about
// to be, so that one reload serves all that are applied together.
func (d *Daemon) planActivation(now time.Time) (step credential.Step, members []*instance, again time.Time) {
	for _, in := range d.instances {
		toApply := in.wanted.pending != nil && in.wanted.retry.due(now) && in.file.recovered && in.file.err == nil && d.hung(in) == nil
		if in.busy == actionApply || toApply || len(in.record.Activation) > 0 && !in.record.settled() {
			return credential.Step{}, nil, time.Time{} // asked again when the apply or the save is over
		}
	}
	for _, in := range d.instances {
		left := in.record.Activation
		if len(left) == 0 {
			continue
		}
		if due := d.activationAt(in); now.Before(due) {
			again = earlier(again, due)
			continue
		}
		if len(members) == 0 {
			step = left[0]
		}
		if slices.Contains(left, step) {
			members = append(members, in)
		}
	}
	return step, members, again
}

// activationAt tells when the activation of an instance may go on: with the schedule, and after a failure's wait.
func (d *Daemon) activationAt(in *instance) time.Time {
	if d.cfg.ActivateAt == nil {
		return in.told.retry.at
	}
	return later(in.told.retry.at, d.cfg.ActivateAt.Next(in.record.ActivationSince))
}

func (d *Daemon) activate(s credential.Step, members []*instance) {
	d.activating = true
	ctx, began := d.finish, time.Now()
	var since time.Time
	for _, in := range members {
		in.told.repeat = false
		since = later(since, in.told.dueAt)
	}
	var err error
	d.do(step{what: "activation, " + s.String(), of: members, bound: fileBound, commands: true}, func() {
		err = d.cfg.Activator.Activate(ctx, s, since)
	})
	d.activating = false
	if errors.Is(err, context.Canceled) {
		return // cut short by the stop, tells nothing; what is due is on record
	}
	for _, in := range members {
		d.onActivation(in, s, err, began, time.Now())
		in.told.retry.at = members[0].told.retry.at // again for all of them at once
	}
}

func (d *Daemon) onActivation(in *instance, s credential.Step, err error, began, now time.Time) {
	if err != nil {
		d.failed(&in.told.retry, now, err, slog.LevelError, "credential not activated", keyInstance, in.Name, keyStep, s.String())
		return
	}
	in.told.retry = retry{}
	if in.told.repeat {
		return // drift was reverted meanwhile, which this step may have loaded
	}
	in.record.activated(func(done credential.Step) bool { return done == s }, now)
	d.log.Info("activated", keyInstance, in.Name, keyStep, s.String(), keyVersion, in.record.Version.Number, keyDuration, now.Sub(began))
}
