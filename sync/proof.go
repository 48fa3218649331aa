package sync

import (
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// proven reports whether it was proven that Campaign works with the applied credential, and no proof has failed. Something must be: a module
// that steps restart, or Adobe's answer. Each of these modules runs again or is not there; Adobe accepts the credential, if it asksFirst or
// was asked.
func (r *record) proven(steps []credential.Step, asksFirst bool) bool {
	if len(r.Activation) > 0 || r.ActivatedVersion != r.Version.Number {
		return false
	}
	some := r.AppliedProbe.Is(state.ProbeAccepted)
	if !some && (asksFirst || r.AppliedProbe != nil) {
		return false
	}
	for _, step := range steps {
		switch {
		case step.Kind != credential.StepRestart:
		case r.proofOf(step) == credential.ProofSeen:
			some = true
		case r.proofOf(step) != credential.ProofAbsent:
			return false
		}
	}
	return some
}

// proofOf is what was seen of a step; "" if nobody looked.
func (r *record) proofOf(step credential.Step) credential.ProofResult {
	for _, p := range r.proofs() {
		if p.Step == step {
			return p.Result
		}
	}
	return ""
}

// proofs are what was seen of the steps of the newest activation.
func (r *record) proofs() []state.StepProof {
	if r.Proofs == nil || !r.Proofs.Since.Equal(r.ActivationSince) {
		return nil
	}
	return r.Proofs.Steps
}

// unproven is the first step whose module does not run again, or nil.
func (r *record) unproven() *state.StepProof {
	for _, p := range r.proofs() {
		if p.Result == credential.ProofMissing {
			return &p
		}
	}
	return nil
}

// prove notes what was seen of a step.
func (r *record) prove(proof state.StepProof) {
	others := slices.DeleteFunc(slices.Clone(r.proofs()), func(p state.StepProof) bool { return p.Step == proof.Step })
	r.Proofs = &state.Proofs{Since: r.ActivationSince, Steps: append(others, proof)}
	r.unsaved = true
}

// forgetProofs forgets those of steps that nobody wants any more.
func (r *record) forgetProofs(unwanted func(credential.Step) bool) {
	kept := slices.DeleteFunc(slices.Clone(r.proofs()), func(p state.StepProof) bool { return unwanted(p.Step) })
	if len(kept) < len(r.proofs()) {
		r.Proofs = &state.Proofs{Since: r.ActivationSince, Steps: kept}
		r.unsaved = true
	}
}

var notProven = report{"module not seen again after its restart",
	"see whether it runs in Campaign, and start it by hand; it is looked at again, and not restarted"}

// onProof takes in what was seen of a step that is done. What cannot be told is logged once.
func (d *Daemon) onProof(in *instance, s credential.Step, proof credential.Proof, now time.Time) {
	if proof.Result == "" {
		return
	}
	a := &in.activation
	in.record.prove(state.StepProof{Step: s, At: now, Proof: proof})
	switch proof.Result {
	case credential.ProofMissing:
		a.look.failed(in.log, now, errProof(proof.Text), notProven, "step", s.String())
		d.emit(in, event.Event{Kind: event.Unproven, Text: proof.Text})
	case credential.ProofAbsent, credential.ProofUnknown:
		if fact := s.String() + string(proof.Result); !slices.Contains(a.told, fact) {
			a.told = append(slices.Clone(a.told), fact)
			if proof.Result == credential.ProofAbsent {
				in.log.Info("module not there, nothing to prove", "step", s.String(), "reason", proof.Text)
			} else {
				in.log.Warn("restart not proven", "step", s.String(), "reason", proof.Text)
			}
		}
	}
}

type errProof string

func (e errProof) Error() string { return string(e) }

// planLook picks an instance whose module is to be looked for again, or tells when.
func (d *Daemon) planLook(now time.Time) (next *instance, again time.Time) {
	if d.phase > working {
		return nil, time.Time{}
	}
	for _, in := range d.instances {
		switch {
		case len(in.record.Activation) > 0 || in.record.unproven() == nil || in.activation.looks:
		case in.activation.look.due(now):
			return in, time.Time{}
		default:
			again = earlier(again, in.activation.look.at)
		}
	}
	return nil, again
}

// lookForModule looks again for a module that did not run, and restarts nothing. A look that hangs is not waited for.
func (d *Daemon) lookForModule(in *instance) {
	was := *in.record.unproven()
	in.activation.looks = true
	d.spawn(func() { d.seekModule(in, was) })
	for in.activation.looks && in.hung() == nil && d.phase < ended {
		d.wait(time.Time{}, &in.news, nil)
	}
}

func (d *Daemon) seekModule(in *instance, was state.StepProof) {
	if d.phase > working { // since it was decided
		in.activation.looks = false
		d.wake(in)
		return
	}
	var proof credential.Proof
	d.do(&step{what: "look for a module, " + was.Step.String(), of: []*instance{in}, bound: fileBound}, func() {
		proof = d.cfg.Activator.Prove(was.Step.Module, was.Before)
	})
	in.activation.looks = false
	now := time.Now()
	if is := in.record.unproven(); is == nil || is.Step != was.Step || !is.At.Equal(was.At) {
		return // activated anew meanwhile
	}
	if proof.Result == credential.ProofMissing {
		in.activation.look.failed(in.log, now, errProof(proof.Text), notProven, "step", was.Step.String())
		return
	}
	in.activation.look = retry{}
	in.log.Info("module seen again", "step", was.Step.String(), "duration", now.Sub(was.At))
	d.onProof(in, was.Step, proof, now)
	if in.record.unproven() == nil {
		d.emit(in, event.Event{Kind: event.Recovered, Text: was.Step.String() + ": the module runs again"})
	}
}
