package web

import (
	"cmp"
	"context"
	"fmt"
	"html"
	"net/http"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/control"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/sync"
	"campaign-credsync/sync/event"
)

const (
	// shownEvents is how many of the newest events of drift the page shows.
	shownEvents = 50
	// historyTimeout is how long the history's disk may take.
	historyTimeout = 2 * time.Second
)

// page writes HTML. (html/template would make the daemon larger by a quarter: with it, the linker keeps every exported method.)
type page struct {
	text strings.Builder
	now  time.Time
}

// add writes markup, in which every argument is text from outside and is escaped.
func (p *page) add(markup string, args ...any) {
	escaped := make([]any, len(args))
	for i, a := range args {
		escaped[i] = html.EscapeString(fmt.Sprint(a))
	}
	fmt.Fprintf(&p.text, markup, escaped...)
}

// servePage answers with a page of what is known now.
func (h *handler) servePage(w http.ResponseWriter, r *http.Request) {
	status := h.Status()
	drift, err := h.newestDrift(r.Context())

	p := &page{now: time.Now()}
	p.head(status)
	p.warnings(status.Warnings)
	p.instances(status.Instances)
	p.causes(status.Instances)
	p.drift(drift, err)
	p.vault(status.Vault)
	p.foot(status.Daemon)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write([]byte(p.text.String()))
}

// newestDrift reads the history, the newest first. One reads at a time, and one is left behind where the disk hangs.
func (h *handler) newestDrift(ctx context.Context) ([]event.Event, error) {
	ctx, cancel := context.WithCancel(ctx) // its end ends the wait for another request's read
	defer cancel()
	return deadline.Run(ctx, historyTimeout, "reading the history", deadline.Disk, func() ([]event.Event, error) {
		select {
		case h.reading <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-h.reading }()
		return h.Drift(shownEvents)
	})
}

func (p *page) head(s control.Status) {
	total, wrong := len(s.Instances), len(control.NotInSync(s.Instances))
	class, summary := control.Good, fmt.Sprintf("All %d instances are in sync", total)
	switch {
	case total == 0:
		class, summary = control.Waiting, "The daemon is starting"
	case wrong > 0:
		class, summary = control.Bad, fmt.Sprintf("%d of %d instances not in sync", wrong, total)
	case total == 1:
		summary = "The instance is in sync"
	}
	p.add(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>%s – campaign-credsync</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<header>
<h1>Campaign credentials</h1>
<p class="summary %s"><span aria-hidden="true">%s</span> %s</p>
`, summary, class, signs[class], summary)
	p.add(`<p>As of <time datetime="%s">%s</time>. Load the page again to see what is new.</p>
</header>
<main>
`, utc(p.now), utc(p.now))
}

func (p *page) warnings(all []control.Warning) {
	if len(all) == 0 {
		return
	}
	p.add("<section aria-labelledby=\"warnings\">\n<h2 id=\"warnings\">Warnings</h2>\n<ul>\n")
	for _, w := range all {
		p.add("<li><code>%s</code> %s</li>\n", w.Code, w.Text)
	}
	p.add("</ul>\n</section>\n")
}

func (p *page) instances(all []sync.InstanceStatus) {
	p.add("<section aria-labelledby=\"instances\">\n<h2 id=\"instances\">Instances</h2>\n")
	p.beginTable("Instance", "State", "Since", "Wanted", "Applied", "Activated", "Checked", "Reverts")
	for _, in := range all {
		class := control.GradeOf(in.State)
		p.add(`<tr role="row"><th role="rowheader" scope="row">%s</th>
<td role="cell" data-label="State"><span class="state %s"><span aria-hidden="true">%s</span> %s</span></td>
`, in.Name, class, signs[class], in.State)
		p.cell("Since", p.age(in.Since), "")
		p.cell("Wanted", version(in.WantedVersion), "")
		p.cell("Applied", version(in.AppliedVersion), p.ageOf(in.AppliedVersion, in.AppliedAt))
		p.cell("Activated", version(in.ActivatedVersion), p.ageOf(in.ActivatedVersion, in.ActivatedAt))
		p.cell("Checked", p.age(in.LastCheck), "")
		p.cell("Reverts", fmt.Sprint(in.RevertedTotal), "")
		p.add("</tr>\n")
	}
	p.add("</tbody>\n</table>\n</section>\n")
}

// beginTable writes the head of a table. On a phone its rows are shown as blocks, so the roles are named.
func (p *page) beginTable(columns ...string) {
	p.add("<table role=\"table\">\n<thead role=\"rowgroup\"><tr role=\"row\">")
	for _, c := range columns {
		p.add(`<th role="columnheader" scope="col">%s</th>`, c)
	}
	p.add("</tr></thead>\n<tbody role=\"rowgroup\">\n")
}

func (p *page) cell(column, text, more string) {
	p.add(`<td role="cell" data-label="%s"><span>%s`, column, text)
	if more != "" {
		p.add(` <small>%s</small>`, more)
	}
	p.add("</span></td>\n")
}

func (p *page) causes(all []sync.InstanceStatus) {
	all = slices.DeleteFunc(slices.Clone(all), func(in sync.InstanceStatus) bool { return in.Reason == "" && in.LastError == "" })
	if len(all) == 0 {
		return
	}
	p.add("<section aria-labelledby=\"causes\">\n<h2 id=\"causes\">What to do</h2>\n")
	for _, in := range all {
		p.add("<article>\n<h3>%s: %s <code>%s</code></h3>\n", in.Name, in.State, in.Reason)
		if remedy := control.Remedy(in.Reason); remedy != "" {
			p.add("<p>%s</p>\n", remedy)
		}
		if in.LastError != "" {
			p.add("<p class=\"error\">%s</p>\n", in.LastError)
		}
		if !in.NextRetryAt.IsZero() {
			p.add("<p>Next attempt %s.</p>\n", p.age(in.NextRetryAt))
		}
		p.add("</article>\n")
	}
	p.add("</section>\n")
}

func (p *page) drift(all []event.Event, err error) {
	p.add("<section aria-labelledby=\"drift\">\n<h2 id=\"drift\">Drift</h2>\n")
	switch {
	case err != nil:
		p.add("<p>The history cannot be shown: %s.</p>\n", err)
	case len(all) == 0:
		p.add("<p>None in the history.</p>\n")
	default:
		p.beginTable("When", "Instance", "What", "File", "Outcome")
		for _, e := range all {
			p.add(`<tr role="row"><th role="rowheader" scope="row"><time datetime="%s">%s</time></th>
`, utc(e.Time), utc(e.Time))
			p.cell("Instance", e.Instance, "")
			p.cell("What", cmp.Or(changes(e.Attributes), "–"), "")
			p.cell("File", fileOf(e), "")
			p.cell("Outcome", outcomes[e.Kind], e.Text)
			p.add("</tr>\n")
		}
		p.add("</tbody>\n</table>\n<p>All that happened: <code>campaign-credsync history</code></p>\n")
	}
	p.add("</section>\n")
}

// outcomes are words for the kinds of drift.
var outcomes = map[event.Kind]string{
	event.DriftReverted: "reverted", event.DriftLeft: "left", event.Brake: "no longer reverted: too many in an hour",
}

func (p *page) vault(v control.Vault) {
	p.add("<section aria-labelledby=\"vault\">\n<h2 id=\"vault\">Vault</h2>\n")
	switch {
	case !v.Used:
		p.add("<p>Not used.</p>\n")
	default:
		reachable := "Out of reach"
		if v.Reachable {
			reachable = "Reachable"
		}
		p.add("<p>%s. Polled %s.", reachable, p.age(v.LastPoll))
		if !v.TokenExpires.IsZero() {
			p.add(" Token ends %s.", p.age(v.TokenExpires))
		}
		if !v.SecretIDExpires.IsZero() {
			p.add(" Secret-id ends %s.", p.age(v.SecretIDExpires))
		}
		p.add("</p>\n")
	}
	p.add("</section>\n</main>\n")
}

func (p *page) foot(d control.Process) {
	p.add("<footer>\n<p>campaign-credsync %s, started %s. Configuration %s, loaded %s.</p>\n</footer>\n</body>\n</html>\n",
		d.Version, p.age(d.StartedAt), d.ConfigFile, p.age(d.ConfigLoadedAt))
}

// age is how long ago a time was, or how far it is.
func (p *page) age(m sync.Moment) string { return control.Age(m.Sub(p.now), m.IsZero()) }

// ageOf is the age of a version, where there is one.
func (p *page) ageOf(version int, m sync.Moment) string {
	if version == 0 {
		return ""
	}
	return p.age(m)
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// signs say without colour what a grade, which is also the name of a style, says with it.
var signs = map[control.Grade]string{control.Good: "✓", control.Waiting: "…", control.Bad: "!"}

func version(n int) string {
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

// fileOf is whose the file was, and when it was changed.
func fileOf(e event.Event) string {
	text := "–"
	if e.FileOwner != "" {
		text = "of " + e.FileOwner
	}
	if e.FileChangedAt != nil {
		text += ", changed " + utc(*e.FileChangedAt)
	}
	return text
}
