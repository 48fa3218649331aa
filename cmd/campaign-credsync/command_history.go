package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/history"
	"campaign-credsync/sync/event"
)

func newHistoryCommand(in *invocation) *cobra.Command {
	var since time.Duration
	var asJSON bool
	c := in.command("history [--instance NAME] [--since DURATION] [--json]", "Show what was done, and when",
		`Shows the events of the last weeks, the oldest first: what was applied and activated, what drifted and who owned the file,
what was refused, paused, adopted or reloaded. No value of a credential is ever among them.

Exit status: 0, or 1 if it cannot be read, 2 if the configuration is bad, 4 if the daemon may not be asked.`,
		func(ctx context.Context) (int, error) {
			if since < 0 {
				return exitUsage, fmt.Errorf("--since %v: is not in the past; leave the minus out", since)
			}
			// A daemon needs no good configuration to answer, and a bad one may be why it is asked.
			c, problem := in.loadForDaemon(ctx)
			if c == nil || c.ControlSocket == "" {
				return exitUsage, problem
			}
			events, err := readHistory(ctx, c, problem)
			switch {
			case errors.Is(err, control.ErrNoDaemon): // nor may the files be read
				return exitUsage, problem
			case err != nil:
				return exitOf(err), err
			}
			for _, e := range events {
				ofOther := in.instance != "" && e.Instance != in.instance
				if ofOther || since > 0 && time.Since(e.Time) > since {
					continue
				}
				if asJSON {
					in.stdout.Write(e.Line())
				} else {
					fmt.Fprintln(in.stdout, eventLine(e))
				}
			}
			return exitOK, nil
		})
	in.addInstanceFlag(c)
	c.Flags().DurationVar(&since, "since", 0, "only events of the last `DURATION` (such as 24h)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one event a line")
	return c
}

// readHistory asks the daemon, and reads the files where there is none, if the configuration has no problem.
func readHistory(ctx context.Context, c *config.Config, problem error) (events []event.Event, err error) {
	lines, err := control.AskHistory(ctx, c.ControlSocket)
	if errors.Is(err, control.ErrNoDaemon) && problem == nil {
		events, _, err = history.Read(c.StateDir, func(event.Event) bool { return true })
		return events, err
	}
	for line := range bytes.Lines(lines) {
		var e event.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read the daemon's answer: %w", err)
		}
		events = append(events, e)
	}
	return events, err
}

// eventLine is an event for people.
func eventLine(e event.Event) string {
	parts := []string{e.Time.UTC().Format(time.DateTime) + "Z", string(e.Kind)}
	if e.Instance != "" {
		parts = append(parts, e.Instance)
	}
	if e.Version > 0 {
		parts = append(parts, fmt.Sprintf("version %d", e.Version))
	}
	for _, c := range e.Attributes {
		parts = append(parts, c.Name+" "+c.Change)
	}
	if e.FileOwner != "" {
		parts = append(parts, "file of "+e.FileOwner)
	}
	if e.FileChangedAt != nil && !e.FileChangedAt.IsZero() {
		parts = append(parts, "changed "+e.FileChangedAt.UTC().Format(time.DateTime)+"Z")
	}
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	if e.ByUID != nil {
		parts = append(parts, fmt.Sprintf("by uid %d", *e.ByUID))
	}
	line := strings.Join(parts, "  ")
	if e.Text != "" {
		line += ": " + e.Text
	}
	return line
}
