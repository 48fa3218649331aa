package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync"
)

func newStatusCommand(in *invocation) *cobra.Command {
	var asJSON, watch bool
	c := in.command("status [--json] [--watch]", "Show the daemon's status",
		`Asks the running daemon for the state of each instance and of Vault.

Exit status: 0 if all is in sync, 3 if not, 1 if there is no daemon, 2 if the configuration is bad.`,
		func(ctx context.Context) (int, error) {
			// The socket is all that is needed. Whatever else is wrong is the daemon's business, and may be why status is asked.
			c, problem := in.load(ctx)
			if c == nil || c.ControlSocket == "" {
				return exitUsage, problem
			}
			status, err := in.runStatus(ctx, c.ControlSocket, asJSON, watch)
			if errors.Is(err, control.ErrNoDaemon) && problem != nil {
				return exitUsage, problem
			}
			return status, err
		})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&watch, "watch", false, "print again at each change, until interrupted")
	return c
}

// watchEvery is how often status --watch asks.
const watchEvery = 500 * time.Millisecond

func (in *invocation) runStatus(ctx context.Context, socket string, asJSON, watch bool) (int, error) {
	for shown := (control.Status{}); ; {
		now, err := control.AskStatus(ctx, socket)
		switch {
		case watch && ctx.Err() != nil:
			return exitOK, nil // the watcher has seen enough
		case err != nil:
			return exitFailed, err
		case !looksLike(now, shown):
			show(in.stdout, now, asJSON)
			shown = now
		}
		if !watch && !now.InSync() {
			return exitDiffers, nil
		}
		if !watch {
			return exitOK, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchEvery):
		}
	}
}

// looksLike compares all but the times that change with every check.
func looksLike(a, b control.Status) bool {
	return a.Vault.Reachable == b.Vault.Reachable && slices.EqualFunc(a.Instances, b.Instances, func(a, b sync.InstanceStatus) bool {
		a.LastCheck = b.LastCheck
		return a == b
	})
}

func show(w io.Writer, d control.Status, asJSON bool) {
	if asJSON {
		json.NewEncoder(w).Encode(d)
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "INSTANCE\tSTATE\tWANTED\tAPPLIED\tAPPLIED AT\tACTIVATED AT\tLAST CHECK\tREVERTED")
	for _, in := range d.Instances {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", in.Name, in.State, number(in.WantedVersion), number(in.AppliedVersion),
			moment(in.AppliedAt), moment(in.ActivatedAt), moment(in.LastCheck), in.RevertedTotal)
	}
	table.Flush()
	reachable := "out of reach"
	if d.Vault.Reachable {
		reachable = "reachable"
	}
	if d.Vault.Used() {
		fmt.Fprintf(w, "vault: %s, last poll %s, token until %s\n", reachable, moment(d.Vault.LastPoll), moment(d.Vault.TokenExpires))
	} else {
		fmt.Fprintln(w, "vault: not used")
	}
	for _, in := range d.Instances {
		if in.LastError != "" {
			fmt.Fprintf(w, "%s: %s\n", in.Name, in.LastError)
		}
	}
}

func number(version int) string {
	if version == 0 {
		return "-"
	}
	return fmt.Sprint(version)
}

func moment(m sync.Moment) string {
	if m.IsZero() {
		return "-"
	}
	return m.UTC().Format(time.RFC3339)
}
