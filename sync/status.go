package sync

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
)

// State says in one word how an instance is.
type State string

// The states, in the order in which the first that holds is shown.
const (
	StatePaused            State = "paused"   // by an operator
	StateDegraded          State = "degraded" // a step hangs, the file is unusable, or (last but one) the source is unreachable
	StateDrift             State = "drift"    // seen and not reverted
	StateBlocked           State = "blocked"  // the source's answer is refused
	StateHeld              State = "held"     // the first apply waits for an operator
	StatePending           State = "pending"  // a version waits to be applied, or nothing was checked yet
	StateActivationPending State = "activation_pending"
	StateInSync            State = "in_sync"
)

// States are all states.
var States = []State{StatePaused, StateDegraded, StateDrift, StateBlocked, StateHeld, StatePending, StateActivationPending, StateInSync}

// InstanceStatus is how one instance was. Zero times and versions mean never and none.
type InstanceStatus struct {
	Name             string            `json:"name"`
	State            State             `json:"state"`
	Reason           credential.Reason `json:"reason"` // why it is not in sync; empty if it is
	Since            Moment            `json:"since"`  // of state and reason, or the start of the daemon
	WantedVersion    int               `json:"wanted_version"`
	AppliedVersion   int               `json:"applied_version"`
	AppliedAt        Moment            `json:"applied_at"`
	ActivatedAt      Moment            `json:"activated_at"`
	LastCheck        Moment            `json:"last_check"`
	NextRetryAt      Moment            `json:"next_retry_at"`
	PausedUntil      Moment            `json:"paused_until"`
	ActivatedVersion int               `json:"activated_version"`
	Proven           bool              `json:"proven"`
	RevertedTotal    int               `json:"drift_reverted_total"`
	LastError        string            `json:"last_error"` // of what keeps it from being in sync; one line

	SourceReached bool      `json:"-"` // its source answered when last asked
	LastPoll      time.Time `json:"-"` // of its source, that was answered
	DetectedTotal int       `json:"-"` // times that drift was found, since the start
	Braked        bool      `json:"-"` // drift is not reverted for now
	KeyInFile     bool      `json:"-"` // the file has a private key, as only JWT credentials do; so it was at the last look that could tell
	KeyInSecret   bool      `json:"-"` // the same of the version that is applied, or about to be
	// RecheckFails is why Adobe has long not said whether it still accepts the applied credential; empty: it has, or was not asked.
	RecheckFails string `json:"-"`
	NotSaved     string `json:"-"` // why what is remembered of it is not on disk; empty: it is, or is about to be
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

// Status returns how each instance was after the last decision about it.
func (d *Daemon) Status() []InstanceStatus {
	all := make([]InstanceStatus, len(d.instances))
	for i, in := range d.instances {
		all[i] = *in.status.Load()
	}
	return all
}

// publish has Status return what has changed.
func (d *Daemon) publish() {
	now := time.Now()
	status := make([]InstanceStatus, len(d.changed))
	for i, in := range d.changed {
		if in.file.err == nil {
			in.file.hasKey = in.file.seen.HasPrivateKey()
		}
		c := d.conditionOf(in, now)
		d.show(in, c, now)
		one := d.statusOf(in, c, now)
		status[i] = one
		in.status.Store(&one)
	}
	if d.cfg.OnStatus != nil {
		d.cfg.OnStatus(status)
	}
}

func (d *Daemon) statusOf(in *instance, c condition, now time.Time) InstanceStatus {
	_, braked := in.record.brake(d.cfg.MaxReverts, now)
	s := InstanceStatus{
		Name:             in.Name,
		State:            c.state,
		Reason:           c.reason,
		Since:            Moment{in.shown.since},
		WantedVersion:    in.wanted.newest.Number,
		AppliedVersion:   in.record.Version.Number,
		AppliedAt:        Moment{in.record.AppliedAt},
		ActivatedAt:      Moment{in.record.ActivatedAt},
		LastCheck:        Moment{in.file.checkedAt},
		NextRetryAt:      Moment{c.retryAt},
		ActivatedVersion: in.record.ActivatedVersion,
		Proven:           in.record.proven(in.Steps, d.cfg.Patience > 0),
		RevertedTotal:    in.record.RevertedTotal,
		LastError:        credential.OneLine(c.text),
		SourceReached:    !in.source.lastPoll.IsZero() && !in.source.retry.isFailing(),
		LastPoll:         in.source.lastPoll,
		DetectedTotal:    in.detected,
		Braked:           braked,
		RecheckFails:     in.recheck.fails(),
		NotSaved:         in.record.retry.reason,
		KeyInFile:        in.file.hasKey,
		KeyInSecret:      in.keyInSecret(),
	}
	if p := in.record.Paused; p != nil {
		s.PausedUntil.Time = p.Until
	}
	return s
}

func (in *instance) keyInSecret() bool {
	if p := in.wanted.pending; p != nil {
		return p.hasKey()
	}
	return in.record.HasKey
}

// show takes note of since when an instance is as it is, and tells of trouble that begins or ends.
func (d *Daemon) show(in *instance, c condition, now time.Time) {
	if c.state != in.shown.state || c.reason != in.shown.reason {
		c.since = now
		in.shown = c
	}
	var ofSource condition
	if in.source.retry.isFailing() {
		ofSource = sourceCondition(StateDegraded, in.source)
	}
	d.tellTrouble(in, &in.fileTrouble, d.fileCondition(in), "the file can be looked after again")
	d.tellTrouble(in, &in.sourceTrouble, ofSource, "the source answers again")
}

// tellTrouble tells that trouble begins or ends, whatever state is shown before it.
func (d *Daemon) tellTrouble(in *instance, told *bool, c condition, over string) {
	switch is := c.state != ""; {
	case is && !*told:
		*told = true
		d.emit(in, event.Event{Kind: event.Degraded, Reason: string(c.reason), Text: c.text})
	case !is && *told:
		*told = false
		d.emit(in, event.Event{Kind: event.Recovered, Text: over})
	}
}

// condition is how an instance is, and why.
type condition struct {
	state   State
	reason  credential.Reason
	text    string // the error behind it
	retryAt time.Time
	since   time.Time
}

// conditionOf finds the first state that holds. Under a pause its text says what else was found.
func (d *Daemon) conditionOf(in *instance, now time.Time) condition {
	found := d.unpausedCondition(in, now)
	if !in.isPaused(now) {
		return found
	}
	c := condition{state: StatePaused, reason: credential.ReasonPaused, text: in.record.Paused.String()}
	switch found.state {
	case StateDrift: // that it is not reverted is due to the pause
		c.text += "; found meanwhile: drift"
	case StateBlocked, StateDegraded:
		c.text += fmt.Sprintf("; found meanwhile: %s (%s): %s", found.state, found.reason, found.text)
	}
	return c
}

func (d *Daemon) unpausedCondition(in *instance, now time.Time) condition {
	f, w, source := &in.file, &in.wanted, in.source
	neverPolled := source.lastPoll.IsZero() && !source.retry.isFailing()
	unseen := f.checkedAt.IsZero() || (f.err != nil && f.rightAt.IsZero()) || neverPolled
	toApply := in.isToApply() || in.record.Applying != nil || w.force != notForced // the last two wait for its secret to be read again
	ofFile := d.fileCondition(in)
	switch {
	case ofFile.state != "":
		return ofFile
	case len(in.drift()) > 0 && in.busy != actionApply:
		return d.driftCondition(in, now)
	case w.refusal != nil:
		return condition{state: StateBlocked, reason: cmp.Or(w.refusal.Code, credential.ReasonSecretMalformed), text: w.refusal.Error(), retryAt: source.next}
	case in.appliedRefusal() != nil:
		return condition{state: StateBlocked, reason: credential.ReasonIMSRefused, text: in.appliedRefusal().Error(), retryAt: in.recheck.at}
	case in.isHeld():
		return condition{state: StateHeld, reason: credential.ReasonFirstApply,
			text: "somebody else set the credential that is on disk; to apply the source's, run sync; to keep it, run adopt"}
	case unseen:
		return condition{state: StatePending, reason: credential.ReasonNotChecked, text: cmp.Or(w.retry.reason, source.retry.reason)}
	case toApply:
		return d.applyCondition(in)
	case len(in.record.Activation) > 0:
		return d.activationCondition(in, now)
	case in.record.unproven() != nil:
		return condition{state: StateActivationPending, reason: credential.ReasonActivationUnproven, text: in.record.unproven().Text, retryAt: in.activation.look.at}
	case source.retry.isFailing():
		return sourceCondition(StateDegraded, source)
	case in.record.Version.IsZero():
		return condition{state: StatePending, reason: credential.ReasonNotChecked}
	}
	return condition{state: StateInSync}
}

// fileCondition is for an instance whose file cannot be looked after; its state is empty for every other.
func (d *Daemon) fileCondition(in *instance) condition {
	f, hung := &in.file, in.hung()
	switch {
	case hung != nil:
		return condition{state: StateDegraded, reason: credential.ReasonStuck, text: hung.String()}
	case f.unusable():
		return condition{state: StateDegraded, reason: reasonOfFile(f.err), text: f.err.Error(), retryAt: f.lookAt}
	case f.recovery.isFailing():
		return condition{state: StateDegraded, reason: credential.ReasonRecovering, text: f.recovery.reason, retryAt: f.recovery.at}
	}
	return condition{}
}

func reasonOfFile(err error) credential.Reason {
	switch {
	case errors.Is(err, credential.ErrMissing):
		return credential.ReasonFileMissing
	case errors.Is(err, credential.ErrDamaged):
		return credential.ReasonFileDamaged
	case errors.Is(err, credential.ErrBusy):
		return credential.ReasonFileBusy
	}
	return credential.ReasonFileUnreadable
}

func sourceCondition(state State, s *source) condition {
	return condition{state: state, reason: cmp.Or(s.retry.code, credential.ReasonSourceUnreadable), text: s.retry.reason, retryAt: s.retry.at}
}

// applyCondition is for a version that waits to be applied.
func (d *Daemon) applyCondition(in *instance) condition {
	switch w := &in.wanted; {
	case w.retry.isFailing():
		return condition{state: StatePending, reason: cmp.Or(w.retry.code, credential.ReasonApplyFailed), text: w.retry.reason, retryAt: w.retry.at}
	case d.awaitsProbe(in):
		return condition{state: StatePending, reason: credential.ReasonProbeWaits, text: in.probe.retry.reason, retryAt: in.probe.retry.at}
	case w.pending == nil && in.source.retry.isFailing():
		return sourceCondition(StatePending, in.source)
	}
	return condition{state: StatePending, reason: credential.ReasonApplyWaits}
}

func (d *Daemon) activationCondition(in *instance, now time.Time) condition {
	c := condition{state: StateActivationPending, reason: credential.ReasonActivationWaits, retryAt: d.activationAt(in)}
	switch r := &in.activation.retry; {
	case r.isFailing():
		c.reason, c.text = credential.ReasonActivationFailed, r.reason
	case now.Before(in.activation.notBefore):
		c.text = in.activation.waits
	case now.Before(c.retryAt):
		c.reason = credential.ReasonWindow
	}
	return c
}

func (d *Daemon) driftCondition(in *instance, now time.Time) condition {
	left := d.planRevert(in, now).left
	return condition{state: StateDrift, reason: cmp.Or(left.reason, credential.ReasonDriftStuck),
		text: cmp.Or(left.text, "it is about to be reverted"), retryAt: left.retryAt}
}
