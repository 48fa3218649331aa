package sync

import (
	"errors"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
)

var notApplied = report{"credential not applied", "correct what the reason says; it is tried again, at once with: campaign-credsync sync"}

// apply runs the command. The intent is saved ahead of it by the same step: nothing else is saved meanwhile.
func (d *Daemon) apply(in *instance) {
	p, force, r, ctx := in.wanted.pending, in.wanted.force, &in.record, d.commands
	before, drift := r.Record, changesOf(r.Attributes, in.file.seen)
	var others credential.Attributes
	if before.SecretDigest != "" && before.SecretDigest != p.secretDigest {
		others = before.Attributes
	}
	r.Applying = &p.version
	intent := r.Record
	r.unsaved, r.saving = false, true
	var attributes credential.Attributes
	var took time.Duration
	var saved bool
	var err error
	d.onFile(in, actionApply, &step{what: "apply", bound: applyBound, commands: true}, func() {
		if err = d.cfg.Store.Save(in.Name, intent); err == nil {
			saved = true
			attributes, took, err = in.Sink.Apply(ctx, p.credential, others)
		}
	})
	r.saving = false
	now := time.Now()
	r.unsaved = true
	if saved {
		r.retry = retry{}
		in.file.stale = true // events of our own command are behind us, but somebody else may have written meanwhile
	}
	if err == nil {
		in.onApply(p, force, attributes, now)
		in.log.Info("credential applied", "version", p.version.Number, "duration", took)
		if d.cfg.Meter != nil {
			d.cfg.Meter.Applied(took)
		}
		if force == forDrift {
			d.emitReverted(in, drift, took)
		}
		d.emit(in, event.Event{Kind: event.Applied})
		return
	}
	// What an earlier command wrote is as unknown as before; what this one left is looked into by Recover.
	r.Applying = before.Applying
	if saved && !errors.Is(err, credential.ErrStillRunning) { // else nothing was begun
		in.file.recovered = false
	}
	if errors.Is(err, credential.ErrBusy) || errors.Is(err, credential.ErrStillRunning) {
		err = credential.Because(credential.ReasonApplyWaits, err)
	}
	if ctx.Err() == nil { // else it was called off by the stop before it began
		in.wanted.retry.failed(in.log, now, err, notApplied, "version", p.version.Number)
	}
}

// onApply has version, digest, attributes and the activation to come reach the disk in one write.
func (in *instance) onApply(p *pending, force force, attributes credential.Attributes, now time.Time) {
	r, f, w := &in.record, &in.file, &in.wanted
	if !in.isApplied(p) {
		r.AppliedProbe = p.probe
	}
	if r.Probe != nil && r.Probe.Digest == p.digest {
		r.Probe = nil
	}
	in.recheck = recheck{}
	r.Version, r.Fields, r.Digest, r.SecretDigest, r.HasKey = p.version, p.fields, p.digest, p.secretDigest, p.hasKey()
	r.Attributes, r.AppliedAt, r.Held = attributes, now, nil
	in.requireActivation(now)
	if force == forDrift {
		r.reverted(now)
	}
	f.seen, f.err, f.checkedAt = attributes, nil, now
	f.seenRight(now)
	w.retry = retry{}
	in.driftGone()
	if w.pending != nil && w.pending.version.Equal(p.version) {
		w.pending = nil
	}
	if w.force == force {
		w.force = notForced
	}
}

// recordSame notes that the version in hand holds the credential that is applied already.
func (d *Daemon) recordSame(in *instance) {
	r, p := &in.record, in.wanted.pending
	in.wanted.pending = nil
	if !r.Version.Equal(p.version) { // else its fields have other names now; what a newer release has recorded of the version stays
		in.log.Info("new version holds the same credential, recorded", "version", p.version.Number)
		if r.Version = p.version; len(r.Activation) == 0 {
			r.ActivatedVersion = p.version.Number
		}
	}
	r.Fields, r.HasKey = p.fields, p.hasKey()
	r.unsaved = true
	d.wake(in)
}
