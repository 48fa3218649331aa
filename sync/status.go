package sync

import (
	"cmp"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
)

// State says in one word how an instance is.
type State string

// The states, in the order in which the first that holds is shown.
const (
	StateDegraded          State = "degraded" // a step hangs, the file is unusable, or (last but one) the source is unreachable
	StateDrift             State = "drift"    // seen and not reverted
	StateBlocked           State = "blocked"  // the source's answer is refused
	StatePending           State = "pending"  // a version waits to be applied, or nothing was checked yet
	StateActivationPending State = "activation_pending"
	StateInSync            State = "in_sync"
)

// InstanceStatus is how one instance was. Zero times and versions mean never and none.
type InstanceStatus struct {
	Name           string `json:"name"`
	State          State  `json:"state"`
	WantedVersion  int    `json:"wanted_version"`
	AppliedVersion int    `json:"applied_version"`
	AppliedAt      Moment `json:"applied_at"`
	ActivatedAt    Moment `json:"activated_at"`
	LastCheck      Moment `json:"last_check"`
	RevertedTotal  int    `json:"drift_reverted_total"`
	LastError      string `json:"last_error"` // of what keeps it from being in sync; one line

	SourceReached bool      `json:"-"` // its source answered when last asked
	LastPoll      time.Time `json:"-"` // of its source, that was answered
}

// Moment is a time that JSON shows in UTC, or as null if it is zero.
type Moment struct{ time.Time }

// MarshalJSON serves encoding/json.
func (m Moment) MarshalJSON() ([]byte, error) {
	if m.IsZero() {
		return []byte("null"), nil
	}
	return m.UTC().MarshalJSON()
}

// maxError bounds LastError, in bytes: it may hold what others answered.
const maxError = 4 << 10

// Status returns how each instance was after the last decision. Nothing in it is changed later.
func (d *Daemon) Status() []InstanceStatus { return *d.status.Load() }

func (d *Daemon) publish() {
	var status []InstanceStatus
	for _, in := range d.instances {
		state, reason := d.stateOf(in)
		status = append(status, InstanceStatus{
			Name:           in.Name,
			State:          state,
			WantedVersion:  in.wanted.newest.Number,
			AppliedVersion: in.record.Version.Number,
			AppliedAt:      Moment{in.record.AppliedAt},
			ActivatedAt:    Moment{in.record.ActivatedAt},
			LastCheck:      Moment{in.file.checkedAt},
			RevertedTotal:  in.record.RevertedTotal,
			LastError:      credential.Cut(strings.ReplaceAll(reason, "\n", "; "), maxError), // errors may be joined
			SourceReached:  !in.source.lastPoll.IsZero() && !in.source.retry.isFailing(),
			LastPoll:       in.source.lastPoll,
		})
	}
	d.status.Store(&status)
	if d.cfg.OnStatus != nil {
		d.cfg.OnStatus(status)
	}
}

// stateOf finds the first state that holds, and the error behind it.
func (d *Daemon) stateOf(in *instance) (State, string) {
	f, w, source := &in.file, &in.wanted, in.source
	neverPolled := source.lastPoll.IsZero() && !source.retry.isFailing()
	unseen := f.checkedAt.IsZero() || f.err != nil && f.rightAt.IsZero() || neverPolled
	toApply := in.record.Applying != nil || w.force != notForced || w.pending != nil && !in.isApplied(w.pending)
	hung := d.hung(in)
	switch {
	case hung != nil:
		return StateDegraded, hung.String()
	case f.unusable():
		return StateDegraded, f.err.Error()
	case f.recovery.isFailing():
		return StateDegraded, f.recovery.reason
	case len(in.drift()) > 0 && in.busy != actionApply:
		return StateDrift, d.whyDriftStays(in)
	case w.refusal != nil:
		return StateBlocked, w.refusal.Error()
	case unseen || toApply:
		return StatePending, cmp.Or(w.retry.reason, source.retry.reason)
	case len(in.record.Activation) > 0:
		return StateActivationPending, in.activation.retry.reason
	case source.retry.isFailing():
		return StateDegraded, source.retry.reason
	case in.record.Version.IsZero():
		return StatePending, ""
	}
	return StateInSync, in.record.retry.reason
}

func (d *Daemon) whyDriftStays(in *instance) string {
	switch end, braked := in.record.brake(d.cfg.MaxReverts, time.Now()); {
	case d.cfg.Revert == RevertAlert:
		return "drift is only reported (drift.revert: alert)"
	case braked && end.Equal(in.file.brakeLogged): // so it is on disk
		return "drift is not reverted for now: more than drift.max_reverts reverts in an hour"
	case in.wanted.refusal != nil && !d.maySplice(in, time.Now()): // the credential to be applied again cannot be had
		return in.wanted.refusal.Error()
	}
	return cmp.Or(in.file.restore.reason, in.wanted.retry.reason, in.source.retry.reason, "it is about to be reverted")
}
