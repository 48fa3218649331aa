package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	r.Held = &state.Held{Since: now, Released: in.ordered}
	r.Attributes = managed
	r.unsaved = true
	in.learnFirst(d.cfg.Store.Key())
	if in.isHeld() {
		in.log.Warn("the first apply is held, as somebody else set the credential that is on disk; to apply Vault's, run sync; to keep it, run adopt")
		d.emit(in, event.Event{Kind: event.Held, Version: r.Held.Version.Number, Text: "a credential that somebody else set is on disk"})
	}
}

// learnFirst remembers the first version that could be read. What was remembered with another key, under other names of fields, or of
// another secret cannot be compared: it is no older version of this one.
func (in *instance) learnFirst(key []byte) {
	r, p := &in.record, in.wanted.pending
	if r.Held == nil || p == nil {
		return
	}
	held := *r.Held // a record is a value
	sameSecret := held.Version.Secret == p.version.Secret
	if held.Digest != "" && held.Key == credential.KeyID(key) && maps.Equal(r.Fields, p.fields) && sameSecret {
		return
	}
	held.Version, held.Digest, held.Key = p.version, p.digest, credential.KeyID(key)
	r.Held, r.Fields, r.unsaved = &held, p.fields, true
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

// order notes an operator's word that what is wanted is to be applied. While the instance is paused that fails, and later is not what was
// meant.
func (in *instance) order() {
	if !in.isPaused(time.Now()) {
		in.release()
	}
}

// release lets the first apply go on, whenever it comes.
func (in *instance) release() {
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
	chosen, err := d.takeFor(ctx, names)
	if err != nil {
		return err
	}
	defer d.unlock()
	for _, in := range chosen {
		in.adopting++
	}
	defer func() {
		for _, in := range chosen {
			if in.adopting--; in.adopting == 0 {
				in.wanted.read = nil
			}
		}
		d.tell()
	}()
	d.beginCheck(names, time.Now())
	if err := d.await(ctx, slices.Clone(chosen)); err != nil {
		return err
	}
	for slices.ContainsFunc(chosen, d.isAtWork) && d.phase < ended && ctx.Err() == nil { // their sources may hang
		d.wait(time.Time{}, ctx.Done())
	}
	if d.phase >= ended || ctx.Err() != nil {
		return cmp.Or(ctx.Err(), ErrEnded)
	}
	var all error
	for _, in := range chosen {
		if err := d.adopt(in, by); err != nil {
			all = errors.Join(all, fmt.Errorf("instance %s: not adopted: %w", in.Name, err))
		}
	}
	return errors.Join(all, d.awaitSaved(ctx, chosen))
}

// isAtWork reports whether something is under way on the file of an instance, or about to be, and does not hang.
func (d *Daemon) isAtWork(in *instance) bool {
	if in.busy != actionNone {
		return !d.fileHangs(in)
	}
	return d.plan(in, time.Now()).action != actionNone
}

func (d *Daemon) adopt(in *instance, by *int) error {
	r, f, w := &in.record, &in.file, &in.wanted
	switch {
	case in.busy != actionNone:
		return errors.New("a step on its file does not end")
	case !f.recovered:
		return errors.New(f.recovery.reason)
	case f.err != nil:
		return f.err
	}
	managed, complete := in.Sink.Managed(f.seen)
	if !complete {
		return errors.New("the credential on disk is incomplete; client id, technical account id and secret have to be there")
	}
	version := w.newest
	if w.read != nil && w.read.version.Equal(version) {
		if wrong := in.Sink.WrongIDs(w.read.credential, f.seen); len(wrong) > 0 {
			return fmt.Errorf("%s on disk differs from what the source has; correct one of them", strings.Join(wrong, ", "))
		}
	}
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
	if ours := r.Applying == nil && !r.Version.IsZero() && len(in.drift()) == 0; !ours {
		r.Attributes, r.AppliedAt, r.Digest, r.SecretDigest = managed, now, "", ""
		r.Activation, r.ActivatedVersion = nil, version.Number
	} else if !version.Equal(r.Version) {
		r.Digest, r.SecretDigest = "", "" // nobody can tell whether the contents are the same
		if len(r.Activation) == 0 {
			r.ActivatedVersion = version.Number
		}
	}
	if r.Digest == "" {
		r.AppliedProbe = nil
	}
	r.Version, r.Fields, r.Applying, r.RevertOwesActivation, r.Held, r.Probe = version, in.Fields, nil, false, nil, nil
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
		switch {
		case in.record.retry.isFailing():
			return fmt.Errorf("instance %s: it is so until the daemon ends, but cannot be saved: %s", in.Name, in.record.retry.reason)
		case !in.record.saveEnded() && d.phase >= ended:
			return ErrEnded
		}
	}
	return ctx.Err()
}

// takeFor takes the lock, unless there is an error, and returns the instances of these names, all where there is none. A Daemon that has ended takes no order: another may go on with
// what it knew.
func (d *Daemon) takeFor(ctx context.Context, names []string) (chosen []*instance, err error) {
	if err := d.lock.takeUntil(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.unlock()
		}
	}()
	if d.phase >= ended {
		return nil, ErrEnded
	}
	if len(names) == 0 {
		return d.instances, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(d.instances, func(in *instance) bool { return in.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no instance is called %q", name)
		}
		chosen = append(chosen, d.instances[i])
	}
	return chosen, nil
}
