package sync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
)

// Preview is what a pass over an instance would do: the Daemon's plan, not carried out.
type Preview struct {
	Applied credential.Version
	Steps   []string            // what would be done, in order, in words
	Drift   []string            // attributes that differ from what was applied
	Left    string              // why drift would stay; empty if it would not
	Refused *credential.Refusal // why the source's newest version would not be applied
	// Next is the version that would be applied (zero: none), Credential what it holds, and Seen what is on disk.
	Next       credential.Version
	Credential credential.Credential
	Seen       credential.Attributes
	Activation []credential.Step // still to be done
}

// Look makes the Preview of the only instance in cfg. It reads the record, the file and the source, and writes nothing.
func Look(ctx context.Context, cfg Config) (p Preview, err error) {
	if _, err := cfg.Store.Load(cfg.Instances[0].Name); err != nil {
		return p, err
	}
	cfg.Logger = slog.New(slog.DiscardHandler) // it knows nothing that is worth a line
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
	in.file.recovered = true // what a command left is finished by a pass, and not by a look

	p.Drift, p.Refused, p.Activation = in.drift(), in.wanted.refusal, in.record.Activation
	drift, after := strings.Join(p.Drift, ", "), in.Steps
	switch d.plan(in, now).action {
	case actionApply:
		p.Next, p.Credential = in.wanted.pending.version, in.wanted.pending.credential
		p.Steps = []string{fmt.Sprintf("apply version %v", p.Next)}
		if !p.Applied.IsZero() {
			p.Steps[0] += fmt.Sprintf(" (applied: %v)", p.Applied)
		}
	case actionRestore, actionRecordIntent:
		p.Steps = []string{"put back " + drift}
		if !in.file.mayHaveLoaded(now) {
			after = p.Activation
		}
	case actionFetch:
		p.Steps = []string{fmt.Sprintf("apply version %v again, as %s differs", p.Applied, drift)}
	default:
		after = p.Activation
		if d.logDriftLeft(in, now); len(p.Drift) > 0 {
			p.Left = d.driftCondition(in).text
		}
	}
	var names []string
	for _, s := range after {
		names = append(names, s.String())
	}
	if len(names) > 0 {
		p.Steps = append(p.Steps, "activate: "+strings.Join(names, ", "))
	}
	return p, nil
}
