package sync

import (
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// State says in one word how an instance is.
type State string

// The states, in the order in which the first that holds is told.
const (
	StateDegraded          State = "degraded" // a step hangs, file out of order, or (last but one) source out of reach
	StateDrift             State = "drift"    // seen and not put back
	StateBlocked           State = "blocked"  // the source's answer is refused
	StatePending           State = "pending"  // a version waits to be applied, or nothing was checked yet
	StateActivationPending State = "activation_pending"
	StateInSync            State = "in_sync"
)

// Status is how everything was after the loop's last turn. It is a value; nothing in it is changed later.
type Status struct {
	Instances []InstanceStatus
}

// InstanceStatus is how one instance was. Zero times and versions mean never and none.
type InstanceStatus struct {
	Name           string
	State          State
	WantedVersion  int
	AppliedVersion int
	AppliedAt      time.Time
	ActivatedAt    time.Time
	LastCheck      time.Time
	RevertedTotal  int
	LastError      string // of what keeps it from being in sync; one line

	SourceReached bool      // its source answered when last asked
	LastPoll      time.Time // of its source, that was answered
}

// maxError is what LastError may have; what others answered may be in it. In bytes.
const maxError = 4 << 10

// InSync reports whether every instance is.
func (s Status) InSync() bool {
	for _, in := range s.Instances {
		if in.State != StateInSync {
			return false
		}
	}
	return true
}

// Status returns the newest status. It may be called from any goroutine.
func (d *Daemon) Status() Status { return *d.status.Load() }

func (d *Daemon) publish() {
	status := Status{Instances: make([]InstanceStatus, len(d.instances))}
	for i, in := range d.instances {
		status.Instances[i] = d.statusOf(in)
	}
	d.status.Store(&status)
	d.cfg.OnStatus(status)
}

func (d *Daemon) statusOf(in *instance) InstanceStatus {
	s := InstanceStatus{
		Name:           in.Name,
		WantedVersion:  in.wanted.Number,
		AppliedVersion: in.record.Version.Number,
		AppliedAt:      in.record.AppliedAt,
		ActivatedAt:    in.record.ActivatedAt,
		LastCheck:      in.disk.checkedAt,
		RevertedTotal:  in.record.RevertedTotal,
		SourceReached:  in.source.asked() && in.source.err == nil,
		LastPoll:       in.source.lastPoll,
	}
	s.State, s.LastError = d.stateOf(in)
	s.LastError = credential.Cut(strings.ReplaceAll(s.LastError, "\n", "; "), maxError) // joined errors
	return s
}

// stateOf finds the first state that holds, and the error behind it.
func (d *Daemon) stateOf(in *instance) (State, string) {
	hung := d.hung(in)
	switch {
	case hung != nil:
		return StateDegraded, hung.String()
	case in.disk.outOfOrder():
		return StateDegraded, in.disk.err.Error()
	case in.recoverTry.failed():
		return StateDegraded, in.recoverTry.reason
	case d.driftStays(in):
		return StateDrift, d.whyDriftStays(in)
	case in.refusal != nil:
		return StateBlocked, in.refusal.Error()
	case in.waits():
		return StatePending, firstOf(in.applyTry.reason, in.sourceTrouble())
	case len(in.record.Activation) > 0:
		return StateActivationPending, in.activateTry.reason
	case in.source.err != nil:
		return StateDegraded, in.source.err.Error()
	case in.record.Version.IsZero():
		return StatePending, ""
	}
	return StateInSync, in.saveRetry.reason
}

// waits reports whether something is still to be looked at, or applied.
func (in *instance) waits() bool {
	unseen := !in.disk.looked || in.disk.err != nil && in.disk.rightAt.IsZero() || !in.source.asked()
	return unseen || in.record.Applying() || in.force != "" || in.pending != nil && !in.pending.same(in.record)
}

// driftStays reports drift that was seen and is not put back.
func (d *Daemon) driftStays(in *instance) bool {
	if !in.disk.looked || in.disk.err != nil || len(driftOf(in.record, in.disk.seen)) == 0 {
		return false
	}
	return in.braked || d.cfg.Revert == RevertAlert || in.restoreTry.failed() || in.force == forceDrift && in.busy != doApply ||
		in.record.Intent.Kind == state.IntentRevert
}

func (d *Daemon) whyDriftStays(in *instance) string {
	switch {
	case d.cfg.Revert == RevertAlert:
		return "drift is only reported (drift.revert: alert)"
	case in.braked:
		return "drift is not reverted for now: more than drift.max_reverts reverts in an hour"
	}
	refused := ""
	if in.refusal != nil {
		refused = in.refusal.Error()
	}
	return firstOf(in.restoreTry.reason, in.applyTry.reason, in.sourceTrouble(), refused, "it is about to be put back")
}

func (in *instance) sourceTrouble() string {
	if in.source.err != nil {
		return in.source.err.Error()
	}
	return ""
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
