package survey

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Report is what a survey found. Its JSON form is public. It holds names, numbers and words; no value of a credential, not even of the
// one that was made up.
type Report struct {
	Instance     string      `json:"instance"`
	MadeAt       time.Time   `json:"made_at"`
	Daemon       string      `json:"daemon"` // this program's version
	AsAssumed    bool        `json:"as_assumed"`
	FileAsBefore bool        `json:"file_as_before"` // else the error says what is left
	Comparison   []Line      `json:"comparison"`
	Assumptions  Assumptions `json:"assumptions"` // what was found, in the form that the stand-in reads
	Observed     Observed    `json:"observed"`
}

// Observed is what the tests assume nothing of.
type Observed struct {
	Version    string             `json:"version"` // of the banner; empty: there was none
	Build      int                `json:"build"`
	Options    []string           `json:"options"` // all that config -? lists
	TookMillis map[string]float64 `json:"took_ms"` // by call
	Writing    Writing            `json:"writing"`
	Shapes     map[string]string  `json:"shapes"`  // of values, by attribute
	Created    []string           `json:"created"` // names that appeared in conf/ in calls that were wrong
	Left       []string           `json:"left"`    // names beside the instance's file that a call made, and that are still there
	Modules    []Module           `json:"modules"`
	Note       string             `json:"note,omitempty"`
}

func (r *Report) conclude() {
	a := &r.Assumptions
	if a.Database == "" {
		a.Database = "not known"
	}
	r.Comparison = compare(Assumed(), *a)
	r.AsAssumed = !slices.ContainsFunc(r.Comparison, func(l Line) bool { return l.Differs })
	o := &r.Observed
	for _, list := range []*[]string{&o.Created, &o.Left, &o.Options, &o.Writing.OtherNames} {
		*list = append([]string{}, *list...)
	}
	o.Modules = append([]Module{}, o.Modules...)
}

// Markdown writes the report for people.
func (r Report) Markdown(w io.Writer) {
	say := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	result := "as assumed"
	if !r.AsAssumed {
		result = "differs from what is assumed"
	}
	say("# Survey of nlserver: %s\n", result)
	file := "is as before"
	if !r.FileAsBefore {
		file = "is **not as before**"
	}
	say("Instance %s, %s, campaign-credsync %s. The instance's file %s.\n", r.Instance, r.MadeAt.Format(time.RFC3339), r.Daemon, file)
	say("| asked | assumed | found | |\n|---|---|---|---|")
	for _, l := range r.Comparison {
		found, mark := l.Found, ""
		if found == "" {
			found = "(not asked)"
		}
		if l.Differs {
			mark = "**differs**"
		}
		say("| %s | %s | %s | %s |", cell(l.What), cell(l.Assumed), cell(found), mark)
	}
	o := r.Observed
	say("\n## Observed\n\n| what | |\n|---|---|")
	row := func(what, format string, args ...any) {
		say("| %s | %s |", cell(what), cell(fmt.Sprintf(format, args...)))
	}
	row("version, build", "%s, %d", o.Version, o.Build)
	row("options of config -?", "%s", strings.Join(o.Options, ", "))
	for _, call := range append(slices.Clone(calls), "set again") {
		if took, ok := o.TookMillis[call]; ok {
			row("time: "+call, "%.1f ms", took)
		}
	}
	row("writing", "changes in place: %d; sizes seen: %v; from %.1f to %.1f ms after the start", o.Writing.Changes, o.Writing.Sizes,
		o.Writing.FirstMillis, o.Writing.LastMillis)
	row("other names beside the file", "%s", shown(o.Writing.OtherNames))
	if o.Writing.Rights != "" {
		row("rights of the file", "%s", o.Writing.Rights)
	}
	for _, a := range r.Assumptions.Attributes {
		row("value of "+a.Name, "%s", o.Shapes[a.Name])
	}
	row("created in conf/ by wrong calls", "%s", shown(o.Created))
	row("still beside the file: look, and remove", "%s", shown(o.Left))
	for _, m := range o.Modules {
		row("module "+m.Name, "%s; restart: %s in %.1f ms; parent %q, umask %s, control group %q, ours: %v; keeps the restart's output: %v",
			m.Runs, m.Ended, m.TookMillis, m.Parent, m.Umask, m.ControlGroup, m.InOurs, m.HoldsOutput)
	}
	if o.Note != "" {
		row("note", "%s", o.Note)
	}
}

// cell makes a text fit for a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}
