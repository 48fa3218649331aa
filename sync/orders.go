package sync

import (
	"cmp"
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

// The orders of an operator: sync (Ask, Check), pause, resume, adopt.

// Ask notes an operator's order to check the named instances (none: all), for which a first apply that is held waits. by is the user
// who gave it, nil where that is not known.
func (d *Daemon) Ask(ctx context.Context, by *int, names ...string) error {
	asked, err := d.takeFor(ctx, names)
	if err != nil {
		return err
	}
	defer d.unlock()
	for _, in := range asked {
		in.order()
		d.askAdobeAgain(in, time.Now())
		d.emit(in, event.Event{Kind: event.SyncAsked, ByUID: by})
	}
	return nil
}

// Check runs a full check of the named instances (none = all) now, retrying at once whatever waits for a retry, and returns
// when it is over. It is an operator's order: a first apply that is held is done, too. Each instance was looked at, its source polled, and
// everything that could be done at once was done or has failed.
func (d *Daemon) Check(ctx context.Context, names ...string) error {
	ordered, err := d.takeFor(ctx, names)
	if err == nil {
		for _, in := range ordered {
			in.order()
		}
		d.beginCheck(ordered, time.Now())
		err = d.await(ctx, ordered)
		d.unlock()
	}
	return err
}

// order notes an operator's order to apply what is wanted. While the instance is paused that fails, and later is not what was
// meant.
func (in *instance) order() {
	if !in.isPaused(time.Now()) {
		in.release()
	}
}

// Pause has nothing applied, reverted or activated for the named instances (none: all) until the pause ends, by its time or by Resume. It
// begins after the step under way, for which Pause waits. Polls and looks go on.
func (d *Daemon) Pause(ctx context.Context, p state.Pause, names ...string) error {
	chosen, err := d.takeFor(ctx, names)
	if err != nil {
		return err
	}
	defer d.unlock()
	for _, in := range chosen {
		pause := p
		in.record.Paused, in.record.unsaved = &pause, true
		in.log.Warn("paused: nothing is applied, reverted or activated", "until", p.Until.UTC().Truncate(time.Second), "reason", p.Reason)
		d.emit(in, event.Event{Kind: event.Paused, ByUID: p.ByUID, Text: p.String()})
	}
	d.wakeAll() // whoever ends pauses has another one to end
	for _, in := range chosen {
		for in.isWriting() && d.phase < ended && ctx.Err() == nil {
			d.wait(time.Time{}, &in.news, ctx.Done())
		}
	}
	return d.awaitSaved(ctx, chosen)
}

// isWriting reports whether a step that writes or activates is under way for an instance, and does not hang.
func (in *instance) isWriting() bool {
	return slices.ContainsFunc(in.steps, func(s *step) bool {
		return !s.hangs && (s.commands || (s.onFile && in.busy != actionLook))
	})
}

const resumed = "an operator resumed it"

// Resume ends the pause of the named instances (none: all). by is who asked, nil where that is not known.
func (d *Daemon) Resume(ctx context.Context, by *int, names ...string) error {
	chosen, err := d.takeFor(ctx, names)
	if err != nil {
		return err
	}
	defer d.unlock()
	for _, in := range chosen {
		d.endPause(in, by, resumed, time.Now())
	}
	return d.awaitSaved(ctx, chosen)
}

// PauseRecord is Pause where no daemon runs, and with nil Resume. It changes the record alone, and tells of that.
func PauseRecord(store *state.Store, name string, p *state.Pause, by *int, tell func(event.Event)) error {
	record, err := store.Load(name)
	if err != nil {
		return fmt.Errorf("instance %s: %w", name, err)
	}
	if record.Paused == nil && p == nil {
		return nil
	}
	record.Paused = p
	if err := store.Save(name, record); err != nil {
		return err
	}
	e := event.Event{Kind: event.Resumed, Instance: name, Version: record.Version.Number, ByUID: by, Text: resumed}
	if p != nil {
		e.Kind, e.State, e.Reason, e.Text = event.Paused, string(StatePaused), string(credential.ReasonPaused), p.String()
	}
	tell(e)
	return nil
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
		d.wake(chosen...)
	}()
	d.beginCheck(chosen, time.Now())
	if err := d.await(ctx, chosen); err != nil {
		return err
	}
	for slices.ContainsFunc(chosen, d.isAtWork) && d.phase < ended && ctx.Err() == nil { // their sources may hang
		d.wait(time.Time{}, &d.some, ctx.Done())
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
		return !in.fileHangs()
	}
	return d.plan(in, time.Now()).action != actionNone
}

func (d *Daemon) adopt(in *instance, by *int) error {
	r, f, w := &in.record, &in.file, &in.wanted
	switch {
	case in.busy != actionNone:
		return errors.New("a step on its file does not end; see whether the disk or mount answers, and try again")
	case !f.recovered:
		return errors.New(f.recovery.reason)
	case f.err != nil:
		return f.err
	}
	managed, complete := in.Sink.Managed(f.seen)
	if !complete {
		return errors.New("the credential on disk is incomplete; client id, technical account id and secret have to be there")
	}
	version, hasKey := w.newest, r.HasKey && w.newest.Equal(r.Version)
	if w.read != nil && w.read.version.Equal(version) {
		hasKey = w.read.hasKey()
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
		r.Proofs = nil // they are of what was there before
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
	r.Version, r.Fields, r.HasKey, r.Applying, r.RevertOwesActivation, r.Held, r.Probe = version, in.Fields, hasKey, nil, false, nil, nil
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
	d.wake(of...)
	for _, in := range of {
		for !in.record.saveEnded() && d.phase < ended && ctx.Err() == nil {
			d.wait(time.Time{}, &in.news, ctx.Done())
		}
		switch {
		case in.record.retry.isFailing():
			return fmt.Errorf("instance %s: done, but only until the daemon ends, as it cannot be saved; make room for state_dir, and let the daemon's user write there: %s", in.Name, in.record.retry.reason)
		case !in.record.saveEnded() && d.phase >= ended:
			return ErrEnded
		}
	}
	return ctx.Err()
}

// takeFor takes the lock, unless there is an error, and returns the instances of these names (none: all). A Daemon that has ended takes
// no order: another may go on with what it knew.
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
			return nil, fmt.Errorf("no instance is called %q, only %s", name, (&step{of: d.instances}).names())
		}
		chosen = append(chosen, d.instances[i])
	}
	return chosen, nil
}
