package sync

import (
	"context"
	"fmt"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

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
	d.tell()
	for slices.ContainsFunc(chosen, d.isWriting) && d.phase < ended && ctx.Err() == nil {
		d.wait(time.Time{}, ctx.Done())
	}
	return d.awaitSaved(ctx, chosen)
}

// isWriting reports whether a step that writes or activates is under way for an instance, and does not hang.
func (d *Daemon) isWriting(in *instance) bool {
	return slices.ContainsFunc(d.underWay, func(s *step) bool {
		return slices.Contains(s.of, in) && !s.hangs && (s.commands || s.onFile && in.busy != actionLook)
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

func (d *Daemon) endPause(in *instance, by *int, why string, now time.Time) {
	if in.record.Paused == nil {
		return
	}
	in.record.Paused, in.record.unsaved = nil, true
	in.probe.since = time.Time{} // nobody was asked meanwhile
	in.file.touched(true, now)
	in.file.rightAt = time.Time{} // drift with a pause in between counts as old, until the file is seen right again
	in.log.Info("the pause is over", "reason", why)
	d.emit(in, event.Event{Kind: event.Resumed, ByUID: by, Text: why})
	d.tell()
}

// isPaused reports whether an operator has the daemon write nothing. The pause ends when either clock says so: the one that is set, and the
// one that only runs, but stands still while the machine is suspended.
func (in *instance) isPaused(now time.Time) bool {
	p := in.record.Paused
	return p != nil && now.Before(p.Until) && now.Round(0).Before(p.Until.Round(0))
}

// restorePause takes a pause that was read from disk: it lasts no longer than it was asked for, whatever became of the clock.
func (in *instance) restorePause(now time.Time) {
	if p := in.record.Paused; p != nil {
		pause := *p
		pause.Until = now.Add(min(p.Until.Sub(now), p.Until.Sub(p.Since)))
		in.record.Paused = &pause
	}
}

// endPauses ends those that are over, and tells when the next one is.
func (d *Daemon) endPauses(now time.Time) (next time.Time) {
	for _, in := range d.instances {
		switch p := in.record.Paused; {
		case p == nil:
		case in.isPaused(now):
			next = earlier(next, p.Until)
		default:
			d.endPause(in, nil, "its time is over", now)
		}
	}
	return next
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
