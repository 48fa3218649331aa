package sync

import (
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
)

// emit tells of an event, with what it does not say filled in.
func (d *Daemon) emit(in *instance, e event.Event) {
	if d.cfg.OnEvent == nil {
		return
	}
	e.Time, e.Instance = time.Now(), in.Name
	if e.Version == 0 {
		e.Version = in.record.Version.Number
	}
	c := d.conditionOf(in)
	e.State = string(c.state)
	if e.Reason == "" {
		e.Reason = string(c.reason)
	}
	d.cfg.OnEvent(e)
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

// wordsOf tells what was done to each attribute, for a log that names the attributes before.
func wordsOf(changes []event.Change) (words []string) {
	for _, c := range changes {
		words = append(words, c.Change)
	}
	return words
}
