package sync

import (
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// Proven is what something proves and nothing denies: Adobe's answer, and each module that is to be restarted.
func TestProven(t *testing.T) {
	restarts := steps("reload", "restart web")
	module := func(result credential.ProofResult) *state.Proofs {
		return &state.Proofs{Steps: []state.StepProof{{Step: restarts[1], Proof: credential.Proof{Result: result}}}}
	}
	answer := func(result state.ProbeResult) *state.Probe { return &state.Probe{Result: result} }
	for _, c := range []struct {
		name      string
		asksFirst bool
		probe     *state.Probe
		steps     []credential.Step
		proofs    *state.Proofs
		want      bool
	}{
		{"nobody asked, nothing restarted", false, nil, restarts[:1], nil, false},
		{"nobody looked for the module", false, nil, restarts, nil, false},
		{"Adobe accepts", true, answer(state.ProbeAccepted), restarts[:1], nil, true},
		{"Adobe gave no answer", true, answer(state.ProbeInconclusive), restarts[:1], nil, false},
		{"Adobe refuses", true, answer(state.ProbeRefused), restarts[:1], nil, false},
		{"the module runs again", false, nil, restarts, module(credential.ProofSeen), true},
		{"the module runs again, and Adobe was not asked yet", true, nil, restarts, module(credential.ProofSeen), false},
		{"the module runs again, and Adobe accepts", true, answer(state.ProbeAccepted), restarts, module(credential.ProofSeen), true},
		{"the module runs again, and Adobe gave no answer", true, answer(state.ProbeInconclusive), restarts, module(credential.ProofSeen), false},
		{"the module runs again, and Adobe refuses", false, answer(state.ProbeRefused), restarts, module(credential.ProofSeen), false},
		{"Adobe accepts, and the module does not run again", true, answer(state.ProbeAccepted), restarts, module(credential.ProofMissing), false},
		{"Adobe accepts, and nobody looked for the module", true, answer(state.ProbeAccepted), restarts, nil, false},
		{"Adobe accepts, and the module is not there", true, answer(state.ProbeAccepted), restarts, module(credential.ProofAbsent), true},
		{"the module is not there", false, nil, restarts, module(credential.ProofAbsent), false},
		{"a module that is restarted from now on was not", false, nil, append(steps("restart mta"), restarts...), module(credential.ProofSeen), false},
	} {
		r := record{Record: state.Record{Version: credential.Version{Number: 1}, ActivatedVersion: 1, AppliedProbe: c.probe, Proofs: c.proofs}}
		if got := r.proven(c.steps, c.asksFirst); got != c.want {
			t.Errorf("%s: proven is %v", c.name, got)
		}
		if r.Activation = restarts[:1]; r.proven(c.steps, c.asksFirst) {
			t.Errorf("%s: proven before it is activated", c.name)
		}
	}
}
