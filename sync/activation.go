package sync

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// activation is how the running processes learn of what is on disk. The steps that are still to be done stand in the record.
type activation struct {
	retry      retry
	requiredAt time.Time // what a step does counts if it begins after that
	repeat     bool      // the step under way began before
	notBefore  time.Time // so long the next step waits, for no failure
	waits      string    // why
	look       retry     // of the looks for modules that do not run again
	looks      bool      // one is under way
	told       []string  // what could not be proven, as it was logged
}

func (a *activation) require(now time.Time) { a.requiredAt, a.repeat = now, true }

var notActivated = report{"credential not activated", "correct what the reason says; it is tried again, at once with: campaign-credsync sync"}

// requireActivation has all steps done, also if one of them is under way. What was about to be done to the file is over.
func (in *instance) requireActivation(now time.Time) {
	r := &in.record
	if len(r.Activation) == 0 {
		r.ActivationSince = now // else it goes on waiting for the time it has been waiting for
	}
	r.Activation, r.Applying, r.RevertOwesActivation = in.Steps, nil, false
	if len(in.Steps) == 0 {
		r.ActivatedAt, r.ActivatedVersion = now, r.Version.Number
	}
	r.saveAt = time.Time{} // no step is begun before it is on record
	r.Proofs = nil
	in.activation.look, in.activation.notBefore = retry{}, time.Time{}
	in.activation.require(now)
}

// keepActivated runs steps of activation when it is time.
func (d *Daemon) keepActivated() {
	for d.phase < ended {
		now := time.Now()
		s, members, again := d.planActivation(now)
		in, at := d.planLook(now)
		first := d.applying(now)
		switch {
		case len(members) > 0:
			d.activate(s, members)
		case in != nil:
			d.lookForModule(in)
		case first != nil:
			d.wait(at, &first.news, nil)
		default:
			d.wait(earlier(again, at), &d.owed, nil)
		}
	}
}

// planActivation picks the next step and the instances that it is done for. It waits while any instance is being applied, or is about
// to be, so that one reload serves all that are applied together.
func (d *Daemon) planActivation(now time.Time) (step credential.Step, members []*instance, again time.Time) {
	if d.phase > working || d.applying(now) != nil {
		return
	}
	for _, in := range d.instances {
		left := in.record.Activation
		if len(left) == 0 || !d.mayRun(in, now) || in.busy == actionApply || !in.record.saveEnded() {
			continue
		}
		if at := d.activationAt(in); now.Before(at) {
			again = earlier(again, at)
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

// applying is the first instance that activation waits for, or nil. Until it is woken, whatever others do changes nothing. One of which a
// step hangs is not waited for.
func (d *Daemon) applying(now time.Time) *instance {
	for _, in := range d.instances {
		applies := d.appliesNow(in, now) && !(d.awaitsProbe(in) && in.probe.retry.isFailing())
		saves := len(in.record.Activation) > 0 && !in.record.saveEnded()
		if (in.busy == actionApply && !in.fileHangs()) || ((applies || saves) && in.hung() == nil) {
			return in
		}
	}
	return nil
}

// activationAt tells when the activation of an instance may go on: with the schedule, and after a failure's wait.
func (d *Daemon) activationAt(in *instance) time.Time {
	return later(later(in.activation.retry.at, in.activation.notBefore), nextTick(d.cfg.ActivateAt, in.record.ActivationSince))
}

// wait has the next step wait, as err says, which is no failure, and ends none. It asks again before long: the clock may be set.
func (a *activation) wait(log *slog.Logger, now time.Time, err error) {
	a.notBefore = now.Add(longestAsked)
	var asked interface{ RetryAt() time.Time }
	if errors.As(err, &asked) && asked.RetryAt().Before(a.notBefore) {
		a.notBefore = later(now, asked.RetryAt())
	}
	if text := err.Error(); text != a.waits {
		a.waits = text
		log.Info("activation waits", "reason", text)
	}
}

func (d *Daemon) activate(s credential.Step, members []*instance) {
	work := &step{what: "activation, " + s.String(), of: members, bound: fileBound, commands: true}
	d.activating = work
	ctx, began := d.commands, time.Now()
	var since time.Time
	for _, in := range members {
		in.activation.repeat = false
		since = later(since, in.activation.requiredAt)
	}
	var proof credential.Proof
	var err error
	d.do(work, func() { proof, err = d.cfg.Activator.Activate(ctx, s, since) })
	d.activating = nil
	for _, in := range d.instances {
		if in.isToApply() { // which has waited for this step, whoever it was for
			d.wake(in)
		}
	}
	if errors.Is(err, context.Canceled) {
		return // cut short by the stop, tells nothing; what is to be done is on record
	}
	now := time.Now()
	for _, in := range members {
		a := &in.activation
		if credential.ReasonOf(err) == credential.ReasonActivationWaits {
			a.wait(in.log, now, err)
			continue
		}
		if err != nil {
			a.retry.failed(in.log, now, err, notActivated, "step", s.String())
			a.retry.at = members[0].activation.retry.at // again for all of them at once
			continue
		}
		a.retry = retry{}
		if !a.repeat { // else drift was reverted meanwhile, which this step may have loaded
			in.record.activated(func(done credential.Step) bool { return done == s }, now)
			if d.cfg.Meter != nil {
				d.cfg.Meter.Activated(now.Sub(began))
			}
			in.log.Info("activated", "step", s.String(), "version", in.record.Version.Number, "duration", now.Sub(began))
			if ctx.Err() == nil {
				d.onProof(in, s, proof, now)
			} else if proof.Result != "" { // a stop cut the look short: the next start looks again
				in.record.prove(state.StepProof{Step: s, At: now, Proof: proof})
			}
			if len(in.record.Activation) == 0 {
				d.emit(in, event.Event{Kind: event.Activated})
			}
		}
	}
}
