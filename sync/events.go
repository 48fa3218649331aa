package sync

import (
	"cmp"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
)

// emit tells of an event, with what it does not say filled in. It comes after the change: the state is the new one.
func (d *Daemon) emit(in *instance, e event.Event) {
	if d.cfg.OnEvent == nil {
		return
	}
	e.Time, e.Instance = time.Now(), in.Name
	if e.Version == 0 {
		e.Version = in.record.Version.Number
	}
	c := d.conditionOf(in, e.Time)
	e.State, e.Reason, e.Text = string(c.state), cmp.Or(e.Reason, string(c.reason)), credential.OneLine(e.Text)
	d.cfg.OnEvent(e)
}

// emitDrift tells what became of drift, and in what file it was.
func (d *Daemon) emitDrift(in *instance, kind event.Kind, changes []event.Change, text string) {
	e := event.Event{Kind: kind, Attributes: changes, FileOwner: in.file.owner, Text: text}
	if at := in.file.changedAt; !at.IsZero() {
		e.FileChangedAt = &at
	}
	d.emit(in, e)
}

// emitReverted logs and tells what drift was reverted.
func (d *Daemon) emitReverted(in *instance, changes []event.Change, took time.Duration) {
	in.log.Warn("drift reverted", "attribute", namesOf(changes), "change", wordsOf(changes), "file_owner", in.file.owner,
		"file_changed_at", in.file.changedAt.UTC(), "duration", took)
	d.emitDrift(in, event.DriftReverted, changes, "")
}

// changesOf tells what was done to the attributes that differ.
func changesOf(wanted, seen credential.Attributes) (changes []event.Change) {
	for _, name := range credential.Drift(wanted, seen) {
		was, is, change := wanted.Get(name), seen.Get(name), "changed"
		switch {
		case was.Absent:
			change = "added"
		case is.Absent:
			change = "removed"
		case is.Value == "":
			change = "emptied"
		}
		changes = append(changes, event.Change{Name: name, Change: change})
	}
	return changes
}

// namesOf names the attributes.
func namesOf(changes []event.Change) (names []string) {
	for _, c := range changes {
		names = append(names, c.Name)
	}
	return names
}

// wordsOf tells what was done to each attribute, for a log that names the attributes before.
func wordsOf(changes []event.Change) (words []string) {
	for _, c := range changes {
		words = append(words, c.Change)
	}
	return words
}
