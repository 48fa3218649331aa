package web

import (
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync"
	"campaign-credsync/sync/event"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"age": age, "utc": utc, "symbol": symbol, "class": class, "version": versionText, "remedy": control.Remedy, "changes": changes,
}).Parse(pageText))

// shownEvents is how many of the newest events of drift the page shows.
const shownEvents = 50

func servePage(w http.ResponseWriter, c Config) {
	drift := c.Drift()
	drift = drift[max(0, len(drift)-shownEvents):]
	slices.Reverse(drift)
	status := c.Status()
	var text strings.Builder
	err := page.Execute(&text, struct {
		control.Status
		Now   time.Time
		Wrong int
		Drift []event.Event
	}{status, time.Now(), wrong(status), drift})
	if err != nil {
		say(w, http.StatusInternalServerError, "the page could not be made")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write([]byte(text.String()))
}

func wrong(s control.Status) (n int) {
	for _, in := range s.Instances {
		if in.State != sync.StateInSync {
			n++
		}
	}
	return n
}

// age is how long ago a time was, or how far it is.
func age(now time.Time, m sync.Moment) string { return control.Age(m.Sub(now), m.IsZero()) }

func utc(m time.Time) string { return m.UTC().Format(time.RFC3339) }

// symbol says with a sign what the colour says.
func symbol(s sync.State) string {
	switch class(s) {
	case "good":
		return "✓"
	case "waiting":
		return "…"
	}
	return "!"
}

// class is the style of a state.
func class(s sync.State) string {
	switch s {
	case sync.StateInSync:
		return "good"
	case sync.StatePending, sync.StateActivationPending, sync.StatePaused, sync.StateHeld:
		return "waiting"
	}
	return "bad"
}

func versionText(n int) string {
	if n == 0 {
		return "–"
	}
	return fmt.Sprint(n)
}

func changes(all []event.Change) string {
	var texts []string
	for _, c := range all {
		texts = append(texts, c.Name+" "+c.Change)
	}
	return strings.Join(texts, ", ")
}
