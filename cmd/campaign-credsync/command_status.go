package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/control"
	"campaign-credsync/internal/logging"
	"campaign-credsync/sync"
)

func newStatusCommand(in *invocation) *cobra.Command {
	var asJSON, watch, prometheus bool
	c := in.command("status [--json] [--watch] [--prometheus]", "Show the daemon's status",
		`Asks the running daemon for the state of each instance and of Vault, and says what to do.

Exit status: 0 if all is in sync, 3 if not or if the last reload was rejected, 1 if there is no daemon, 2 if the
configuration is bad, 4 if this user may not ask the daemon.`,
		func(ctx context.Context) (int, error) {
			// The socket is all that is needed. Whatever else is wrong is the daemon's business, and may be why status is asked.
			c, problem := in.loadForDaemon(ctx)
			if c == nil || c.ControlSocket == "" {
				return exitUsage, problem
			}
			status, err := in.runStatus(ctx, c.ControlSocket, asJSON, watch, prometheus)
			switch noDaemon := errors.Is(err, control.ErrNoDaemon); {
			case noDaemon && errors.Is(problem, fs.ErrPermission): // the daemon may have another socket
				return status, fmt.Errorf("%w; that is the default socket, as the configuration may not be read: %w", err, problem)
			case noDaemon && problem != nil:
				return exitUsage, problem
			}
			return status, err
		})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&watch, "watch", false, "go on showing it, until interrupted")
	c.Flags().BoolVar(&prometheus, "prometheus", false, "print the metrics, such as for a textfile of node_exporter")
	c.MarkFlagsMutuallyExclusive("json", "prometheus")
	c.MarkFlagsMutuallyExclusive("watch", "prometheus")
	return c
}

// watchEvery is how often status --watch asks.
const watchEvery = 500 * time.Millisecond

func (in *invocation) runStatus(ctx context.Context, socket string, asJSON, watch, prometheus bool) (int, error) {
	now, err := control.AskStatus(ctx, socket)
	switch {
	case errors.Is(err, control.ErrNoDaemon):
		err = fmt.Errorf("%w; to start it: systemctl start campaign-credsync", err)
	case err == nil && watch:
		return exitOK, in.watch(ctx, socket, asJSON, now)
	case err == nil && prometheus:
		var text []byte
		if text, err = control.AskMetrics(ctx, socket); err == nil {
			_, err = in.stdout.Write(text)
		}
	case err == nil:
		in.show(in.stdout, now, asJSON)
	}
	switch {
	case err != nil:
		return exitOf(err), err
	case !now.InSync() || now.Daemon.ReloadError != "":
		return exitDiffers, nil
	}
	return exitOK, nil
}

// watch shows the status until ctx ends, also over a restart of the daemon: on a terminal in place, else again when it has changed.
func (in *invocation) watch(ctx context.Context, socket string, asJSON bool, shown control.Status) error {
	inPlace := logging.IsTerminal(in.stdout) && !asJSON
	in.redraw(shown, asJSON, inPlace, nil)
	for {
		select {
		case <-ctx.Done():
			return nil // the watcher has seen enough
		case <-time.After(watchEvery):
		}
		now, err := control.AskStatus(ctx, socket)
		switch {
		case ctx.Err() != nil:
		case err != nil && inPlace: // it may be starting again
			in.redraw(shown, asJSON, inPlace, err)
		case err == nil && (inPlace || !looksLike(now, shown)):
			in.redraw(now, asJSON, inPlace, nil)
			shown = now
		}
	}
}

func (in *invocation) redraw(d control.Status, asJSON, inPlace bool, err error) {
	if !inPlace {
		in.show(in.stdout, d, asJSON)
		return
	}
	var text bytes.Buffer
	in.show(&text, d, asJSON)
	if err != nil {
		say(&text, "", "%v; this is the last that it said, waiting for it", err)
	}
	// Each line replaces the one that was there.
	fmt.Fprintf(in.stdout, "\x1b[H%s\x1b[J", strings.ReplaceAll(text.String(), "\n", "\x1b[K\n"))
}

// looksLike compares all but the times that change with every check.
func looksLike(a, b control.Status) bool {
	for _, s := range []*control.Status{&a, &b} {
		s.Vault.LastPoll, s.Vault.TokenExpires = sync.Moment{}, sync.Moment{}
		s.Instances = slices.Clone(s.Instances)
		for i := range s.Instances {
			s.Instances[i].LastCheck, s.Instances[i].NextRetryAt = sync.Moment{}, sync.Moment{}
		}
	}
	return reflect.DeepEqual(a, b)
}

// columns is how wide the status is at most, where an instance's name is not longer than usual.
const columns = 80

func (in *invocation) show(w io.Writer, d control.Status, asJSON bool) {
	if asJSON {
		json.NewEncoder(w).Encode(d)
		return
	}
	now := time.Now()
	age := func(m sync.Moment) string { return control.Age(m.Sub(now), m.IsZero()) }
	in.table(w, d.Instances, now)
	for _, i := range d.Instances {
		if i.Reason == "" && i.LastError == "" {
			continue
		}
		next := ""
		if !i.NextRetryAt.IsZero() {
			next = ", next attempt " + age(i.NextRetryAt)
		}
		say(w, "", "%s: %s%s", i.Name, i.Reason, next)
		say(w, "  ", "%s", i.LastError)
		say(w, "  ", "%s", control.Remedy(i.Reason))
	}
	for _, warning := range d.Warnings {
		say(w, "", "warning %s: %s", warning.Code, warning.Text)
	}
	if v := d.Vault; v.Used {
		reachable := "out of reach"
		if v.Reachable {
			reachable = "reachable"
		}
		end := ""
		if !v.TokenExpires.IsZero() {
			end = ", token ends " + age(v.TokenExpires)
		}
		if !v.SecretIDExpires.IsZero() {
			end += ", secret-id ends " + age(v.SecretIDExpires)
		}
		say(w, "  ", "vault: %s, polled %s%s", reachable, age(v.LastPoll), end)
	} else {
		say(w, "  ", "vault: not used")
	}
	p := d.Daemon
	say(w, "  ", "daemon: %s, started %s, configuration %s loaded %s", p.Version, age(p.StartedAt), p.ConfigFile, age(p.ConfigLoadedAt))
}

func (in *invocation) table(w io.Writer, instances []sync.InstanceStatus, now time.Time) {
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "INSTANCE\tSTATE\tSINCE\tWANTED\tAPPLIED\tACTIVE\tCHECKED\tREVERTS")
	for _, i := range instances {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", i.Name, i.State, since(i.Since, now), number(i.WantedVersion), number(i.AppliedVersion),
			number(i.ActivatedVersion), since(i.LastCheck, now), i.RevertedTotal)
	}
	table.Flush()
	noColor, _ := in.env("NO_COLOR")
	coloured := noColor == "" && logging.IsTerminal(in.stdout)
	n, at := -1, strings.Index(text.String(), "STATE") // the head is first; names have only ASCII
	for line := range strings.Lines(text.String()) {
		if n >= 0 && coloured {
			state := string(instances[n].State)
			line = line[:at] + colours[control.GradeOf(instances[n].State)] + state + "\x1b[0m" + line[at+len(state):]
		}
		io.WriteString(w, line)
		n++
	}
}

// since is an age in a column.
func since(m sync.Moment, now time.Time) string {
	switch d := now.Sub(m.Time); {
	case m.IsZero():
		return "-"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", max(d, 0)/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

var colours = map[control.Grade]string{control.Good: "\x1b[32m", control.Waiting: "\x1b[33m", control.Bad: "\x1b[31m"}

// say prints a text in lines of at most columns, of which all but the first are indented; indent is for all of them.
func say(w io.Writer, indent, format string, args ...any) {
	line := indent
	for _, word := range strings.Fields(fmt.Sprintf(format, args...)) {
		if len(line) > len(indent) && len(line)+1+len(word) > columns {
			fmt.Fprintln(w, line)
			line = indent + "  "
		}
		if strings.TrimSpace(line) != "" {
			line += " "
		}
		line += word
	}
	if strings.TrimSpace(line) != "" {
		fmt.Fprintln(w, line)
	}
}

func number(version int) string {
	if version == 0 {
		return "-"
	}
	return fmt.Sprint(version)
}
