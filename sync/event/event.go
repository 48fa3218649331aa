// Package event has the words in which the daemon tells what happened: to its history, and to the program that is told of events.
// No value of a credential has a place in it.
package event

import (
	"encoding/json"
	"time"
)

// Kind is what happened. The kinds are public.
type Kind string

// The kinds of events.
const (
	Applied          Kind = "applied"
	Activated        Kind = "activated"
	Unproven         Kind = "unproven"
	DriftReverted    Kind = "drift_reverted"
	DriftLeft        Kind = "drift_left"
	Brake            Kind = "brake"
	Blocked          Kind = "blocked"
	Unblocked        Kind = "unblocked"
	Degraded         Kind = "degraded"
	Recovered        Kind = "recovered"
	Held             Kind = "held"
	Adopted          Kind = "adopted"
	Paused           Kind = "paused"
	Resumed          Kind = "resumed"
	SyncAsked        Kind = "sync_asked"
	Reloaded         Kind = "reloaded"
	ReloadRejected   Kind = "reload_rejected"
	SecretIDExpiring Kind = "secret_id_expiring"
	Started          Kind = "started"
	Stopped          Kind = "stopped"
)

// IsDrift reports whether it tells what became of drift.
func (k Kind) IsDrift() bool { return k == DriftReverted || k == DriftLeft || k == Brake }

// Event is one thing that happened. Instance is empty where it is about the daemon itself. It is a value; nothing in it is changed later.
type Event struct {
	Time          time.Time  `json:"time"`
	Host          string     `json:"host"`
	Instance      string     `json:"instance"`
	Kind          Kind       `json:"event"`
	State         string     `json:"state"`
	Reason        string     `json:"reason"`
	Version       int        `json:"version"`
	Attributes    []Change   `json:"attributes"`
	FileOwner     string     `json:"file_owner"`
	FileChangedAt *time.Time `json:"file_changed_at"`
	ByUID         *int       `json:"by_uid"`          // who asked for it, where somebody did
	Text          string     `json:"text"`            // for people, one line
	Count         int        `json:"count,omitempty"` // how many events it stands for, where that is more than one
}

// Change is what was done to an attribute: "emptied", "changed", "removed" or "added".
type Change struct {
	Name   string `json:"name"`
	Change string `json:"change"`
}

// Line is the event as one line of JSON, with times in UTC.
func (e Event) Line() []byte {
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	if e.FileChangedAt != nil {
		at := e.FileChangedAt.UTC()
		e.FileChangedAt = &at
	}
	if e.Attributes == nil {
		e.Attributes = []Change{}
	}
	line, _ := json.Marshal(e) // of strings, numbers and times, which never fails
	return append(line, '\n')
}
