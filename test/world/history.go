package world

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"campaign-credsync/test/container"
)

// Event is what a line of `history --json`, and the input of the program of notify.exec, say.
type Event struct {
	Time       time.Time `json:"time"`
	Host       string    `json:"host"`
	Instance   string    `json:"instance"`
	Kind       string    `json:"event"`
	State      string    `json:"state"`
	Reason     string    `json:"reason"`
	Version    int       `json:"version"`
	Attributes []struct {
		Name   string `json:"name"`
		Change string `json:"change"`
	} `json:"attributes"`
	FileOwner     string     `json:"file_owner"`
	FileChangedAt *time.Time `json:"file_changed_at"`
	ByUID         *int       `json:"by_uid"`
	Text          string     `json:"text"`
	Count         int        `json:"count"`
}

// String is what of it does not differ from run to run.
func (e Event) String() string {
	return strings.TrimSpace(strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s %d", e.Kind, e.Instance, e.State, e.Reason, e.Version)), " "))
}

// EventsIn reads events, a line of JSON each.
func (w *World) EventsIn(lines string) (events []Event) {
	w.T.Helper()
	for line := range strings.Lines(lines) {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			w.T.Fatalf("an event: %v: %q", err, line)
		}
		events = append(events, e)
	}
	return events
}

// History returns the events that the command shows.
func (w *World) History(args ...string) []Event {
	w.T.Helper()
	return w.EventsIn(w.Exits(0, "", append([]string{"history", "--json"}, args...)...))
}

// Happened waits until the history ends with an event of this kind, and returns it. Drift that a busy machine let stay for 2 s is also
// activated after its revert.
func (w *World) Happened(kind string) Event {
	w.T.Helper()
	var last Event
	w.Eventually("the history ends with "+kind, func() bool {
		all := w.History()
		if n := len(all); kind == "drift_reverted" && n > 1 && all[n-1].Kind == "activated" {
			all = all[:n-1]
		}
		if len(all) > 0 {
			last = all[len(all)-1]
		}
		return last.Kind == kind
	})
	return last
}

// Warns waits until the status has a warning of this code that says everything, or where it shall be gone, none of this code.
func (w *World) Warns(code string, gone bool, says ...string) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("warning %s %q, gone: %v", code, says, gone), func() bool {
		s, err := w.Asker().Status(w.Ctx)
		at := slices.IndexFunc(s.Warnings, func(x container.Warning) bool { return x.Code == code })
		if err != nil || gone || at < 0 {
			return err == nil && gone && at < 0
		}
		return !slices.ContainsFunc(says, func(text string) bool { return !strings.Contains(s.Warnings[at].Text, text) })
	})
}
