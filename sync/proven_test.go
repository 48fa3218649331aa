package sync

import (
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// Proven is what something proves and nothing denies: Adobe's answer, and the modules that were restarted.
func TestProven(t *testing.T) {
	module := func(result credential.ProofResult) *state.Proofs {
		return &state.Proofs{Steps: []state.StepProof{{Step: steps("restart web")[0], Proof: credential.Proof{Result: result}}}}
	}
	answer := func(result state.ProbeResult) *state.Probe { return &state.Probe{Result: result} }
	for _, c := range []struct {
		name   string
		probe  *state.Probe
		proofs *state.Proofs
		want   bool
	}{
		{"nobody asked, nothing restarted", nil, nil, false},
		{"Adobe accepts", answer(state.ProbeAccepted), nil, true},
		{"Adobe gave no answer", answer(state.ProbeInconclusive), nil, false},
		{"Adobe refuses", answer(state.ProbeRefused), nil, false},
		{"the module runs again", nil, module(credential.ProofSeen), true},
		{"the module runs again, and Adobe accepts", answer(state.ProbeAccepted), module(credential.ProofSeen), true},
		{"the module runs again, and Adobe gave no answer", answer(state.ProbeInconclusive), module(credential.ProofSeen), false},
		{"the module runs again, and Adobe refuses", answer(state.ProbeRefused), module(credential.ProofSeen), false},
		{"Adobe accepts, and the module does not run again", answer(state.ProbeAccepted), module(credential.ProofMissing), false},
	} {
		r := record{Record: state.Record{Version: credential.Version{Number: 1}, ActivatedVersion: 1, AppliedProbe: c.probe, Proofs: c.proofs}}
		if got := r.proven(); got != c.want {
			t.Errorf("%s: proven is %v", c.name, got)
		}
		if r.Activation = steps("reload"); r.proven() {
			t.Errorf("%s: proven before it is activated", c.name)
		}
	}
}
