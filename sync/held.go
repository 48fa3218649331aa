package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// A first apply is held where somebody else set a credential: the daemon does not know whether Vault's is right. It guards what is there,
// and applies when an operator says so, or when the secret becomes another than the first that was read.

// holdFirstApply begins that after a look, if it is the first one ever and the credential on disk is complete.
func (d *Daemon) holdFirstApply(in *instance, seen credential.Attributes, now time.Time) {
	r := &in.record
	if !d.cfg.HoldFirst || !r.Version.IsZero() || r.Applying != nil || r.Held != nil {
		return
	}
	managed, complete := in.Sink.Managed(seen)
	if !complete {
		return
	}
	r.Held = &state.Held{Since: now, Released: in.ordered || d.cfg.Ordered}
	r.Attributes = managed
	r.unsaved = true
	in.learnFirst(d.cfg.Store.Key())
	if in.isHeld() {
		in.log.Warn("the first apply is held, as somebody else set the credential that is on disk; to apply Vault's, run sync; to keep it, run adopt")
		d.emit(in, event.Event{Kind: event.Held, Version: r.Held.Version.Number, Text: "a credential that somebody else set is on disk"})
	}
}

// learnFirst remembers the first version that could be read. What was remembered with another key cannot be compared.
func (in *instance) learnFirst(key []byte) {
	r, p := &in.record, in.wanted.pending
	if r.Held == nil || p == nil || r.Held.Digest != "" && r.Held.Key == credential.KeyID(key) {
		return
	}
	held := *r.Held // a record is a value
	held.Version, held.Digest, held.Key = p.version, p.digest, credential.KeyID(key)
	r.Held, r.unsaved = &held, true
}

// isHeld reports whether the first apply waits.
func (in *instance) isHeld() bool {
	h, p := in.record.Held, in.wanted.pending
	switch {
	case h == nil || h.Released || in.record.Applying != nil:
		return false
	case p == nil || h.Digest == "":
		return true
	}
	return p.digest == h.Digest || p.version.GoesBackFrom(h.Version)
}

// order notes an operator's word that what is wanted is to be applied.
func (in *instance) order() {
	in.ordered = true
	if h := in.record.Held; h != nil && !h.Released {
		held := *h
		held.Released = true
		in.record.Held, in.record.unsaved = &held, true
	}
}

// Adopt records what is on disk as the applied credential of the named instances (none: all), in place of the source's newest version, or
// while it is unreachable the last that was seen. Nothing is run or written but the record. by is who asked, nil where that is not known.
func (d *Daemon) Adopt(ctx context.Context, by *int, names ...string) error {
	if err := d.lock.takeUntil(ctx); err != nil {
		return err
	}
	defer d.unlock()
	chosen, err := d.named(names)
	if err != nil {
		return err
	}
	for _, in := range chosen {
		in.adopting = true
	}
	defer func() {
		for _, in := range chosen {
			in.adopting, in.wanted.read = false, nil
		}
		d.tell()
	}()
	d.beginCheck(names, time.Now())
	if err := d.await(ctx, slices.Clone(chosen)); err != nil {
		return err
	}
	var all error
	for _, in := range chosen {
		if err := d.adopt(in, by); err != nil {
			all = errors.Join(all, fmt.Errorf("instance %s: not adopted: %w", in.Name, err))
		}
	}
	return errors.Join(all, d.awaitSaved(ctx, chosen))
}

func (d *Daemon) adopt(in *instance, by *int) error {
	r, f, w := &in.record, &in.file, &in.wanted
	if f.err != nil {
		return f.err
	}
	managed, complete := in.Sink.Managed(f.seen)
	if !complete {
		return errors.New("the credential on disk is incomplete; client id, technical account id and secret have to be there")
	}
	if w.read != nil {
		if wrong := in.Sink.WrongIDs(w.read.credential, f.seen); len(wrong) > 0 {
			return fmt.Errorf("%s on disk differs from what the source has; correct one of them", strings.Join(wrong, ", "))
		}
	}
	version := w.newest
	if version.IsZero() && r.Held != nil {
		version = r.Held.Version
	}
	if version.IsZero() {
		version = r.Version
	}
	if version.IsZero() {
		return errors.New("no version of the secret was ever seen that it could stand for; run adopt once the source can be read")
	}
	now := time.Now()
	r.Version, r.Fields, r.Digest, r.SecretDigest = version, in.Fields, "", "" // nobody can tell whether the contents are the same
	r.Attributes, r.AppliedAt, r.ActivatedVersion = managed, now, version.Number
	r.Activation, r.Applying, r.RevertOwesActivation, r.Held = nil, nil, false, nil
	r.unsaved = true
	w.pending, w.refusal, w.force, w.retry = nil, nil, notForced, retry{}
	f.seenRight(now)
	in.driftGone()
	in.log.Info("what is on disk was adopted as the applied credential", "version", version.Number)
	d.emit(in, event.Event{Kind: event.Adopted, Version: version.Number, ByUID: by, Text: "what is on disk counts as applied"})
	return nil
}

// awaitSaved waits until the records are on disk, and returns why one is not.
func (d *Daemon) awaitSaved(ctx context.Context, of []*instance) error {
	d.tell()
	for _, in := range of {
		for !in.record.saveEnded() && d.phase < ended && ctx.Err() == nil {
			d.wait(time.Time{}, ctx.Done())
		}
		if in.record.retry.isFailing() {
			return fmt.Errorf("instance %s: it is so until the daemon ends, but cannot be saved: %s", in.Name, in.record.retry.reason)
		}
	}
	return ctx.Err()
}

// named returns the instances of these names, all where there is none.
func (d *Daemon) named(names []string) ([]*instance, error) {
	if len(names) == 0 {
		return d.instances, nil
	}
	var chosen []*instance
	for _, name := range names {
		i := slices.IndexFunc(d.instances, func(in *instance) bool { return in.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no instance is called %q", name)
		}
		chosen = append(chosen, d.instances[i])
	}
	return chosen, nil
}
