package sync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// Preview is what a pass by an operator's order would do for an instance: the Daemon's plan, not carried out.
type Preview struct {
	Applied credential.Version
	Drift   []string            // attributes that differ from what was applied
	Left    string              // why drift would stay; empty if it would not
	Refused *credential.Refusal // why the source's newest version would not be applied
	Held    bool                // the first apply is held; the order releases it
	Paused  *state.Pause        // the pause during which nothing would be done; nil: not paused
	// Next is the version that would be applied (zero: none), Credential what it holds, and Seen what is on disk.
	Next       credential.Version
	Credential credential.Credential
	Seen       credential.Attributes
	Activation []credential.Step // the steps that are still to be done
	Steps      []PlannedStep     // the steps of the pass, in order
}

// PlannedStep is one step of a pass.
type PlannedStep struct {
	Action     string   `json:"action"`               // one of the Planned constants
	Version    int      `json:"version,omitempty"`    // of PlannedProbe, PlannedApply, PlannedRecord
	Attributes []string `json:"attributes,omitempty"` // of PlannedRevert
	Module     string   `json:"module,omitempty"`     // of PlannedRestart
	Why        string   `json:"why"`
	NotBefore  Moment   `json:"not_before"` // zero: at once
}

// The actions of a PlannedStep.
const (
	PlannedProbe   = "probe"                // Adobe is asked whether it accepts the credential
	PlannedApply   = "apply"                // nlserver writes the credential
	PlannedRevert  = "revert"               // the attributes are put back into the file
	PlannedRecord  = "record"               // a version with the same credential is noted
	PlannedReload  = credential.StepReload  // of the web module
	PlannedRestart = credential.StepRestart // of a module
)

// PreviewOf makes the Preview of the only instance in cfg. It reads the record, the file and the source, and writes nothing.
func PreviewOf(ctx context.Context, cfg Config) (p Preview, err error) {
	if _, err := cfg.Store.Load(cfg.Instances[0].Name); err != nil {
		return p, err
	}
	cfg.Logger = slog.New(slog.DiscardHandler) // a preview has nothing to log
	d := New(cfg)
	in, now := d.instances[0], time.Now()
	p.Applied = in.record.Version
	if p.Seen, err = in.Sink.Look(ctx); err != nil {
		return p, err
	}
	d.onLook(in, p.Seen, nil, now, now)
	reading, err := in.Source.Poll(ctx, func(v credential.Version) bool { return in.wants(v) })
	if err != nil && !errors.As(err, new(*credential.Refusal)) {
		return p, err
	}
	d.onPoll(in.source, reading, err, now)
	in.file.recovered = true // a pass finishes what a command left, a look does not

	p.Drift, p.Refused, p.Activation, p.Held = in.drift(), in.wanted.refusal, in.record.Activation, in.isHeld()
	if in.isPaused(now) {
		p.Paused, in.record.Paused = in.record.Paused, nil // the preview tells what waits
	}
	in.order()
	d.preview(in, &p, now)
	if p.Paused != nil {
		p.Steps = nil
	}
	return p, nil
}

// preview fills in what the plan comes to.
func (d *Daemon) preview(in *instance, p *Preview, now time.Time) {
	differs := strings.Join(p.Drift, ", ") + " differs from what was applied"
	after, since, whyAfter := in.Steps, now, "the running processes do not know the credential yet"
	asks := d.awaitsProbe(in)
	if asks {
		in.wanted.pending.probe = &state.Probe{} // the plan goes on as after an answer
	}
	switch d.plan(in, now).action {
	case actionApply:
		p.Next, p.Credential = in.wanted.pending.version, in.wanted.pending.credential
		if asks {
			p.Steps = []PlannedStep{{Action: PlannedProbe, Version: p.Next.Number, Why: "what Adobe refuses is not applied"}}
		}
		p.Steps = append(p.Steps, PlannedStep{Action: PlannedApply, Version: p.Next.Number, Why: in.whyApply(p)})
	case actionFetch:
		p.Steps = []PlannedStep{{Action: PlannedApply, Version: p.Applied.Number, Why: differs}}
	case actionRestore, actionRecordIntent:
		p.Steps = []PlannedStep{{Action: PlannedRevert, Attributes: p.Drift, Why: differs}}
		whyAfter = "the running processes may have read the drift"
		if !in.file.mayHaveLoaded(now) {
			after = p.Activation
		}
	case actionRecordSame:
		p.Steps = []PlannedStep{{Action: PlannedRecord, Version: in.wanted.pending.version.Number, Why: "it holds the credential that is applied"}}
		after = p.Activation
	default:
		after = p.Activation
		if len(p.Drift) > 0 {
			p.Left = d.driftCondition(in, now).text
		}
	}
	if len(p.Activation) > 0 {
		since = in.record.ActivationSince
	}
	at := Moment{nextTick(d.cfg.ActivateAt, since)}
	if !at.After(now) {
		at = Moment{}
	}
	for _, s := range after {
		p.Steps = append(p.Steps, PlannedStep{Action: s.Kind, Module: s.Module, Why: whyAfter, NotBefore: at})
	}
}

// whyApply tells why the version in hand would be applied.
func (in *instance) whyApply(p *Preview) string {
	switch {
	case p.Held:
		return "the first apply is held until sync is run"
	case in.record.Applying != nil:
		return fmt.Sprintf("nobody knows how the apply of version %d ended", in.record.Applying.Number)
	case p.Applied.IsZero():
		return "no version is applied yet"
	}
	return fmt.Sprintf("version %d is applied", p.Applied.Number)
}
