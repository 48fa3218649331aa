package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
)

// statusOptions is what the command line and the configuration tell status.
type statusOptions struct {
	socket string // the daemon's control socket
	json   bool
	watch  bool
}

func newStatusCommand(in *invocation) *cobra.Command {
	var options statusOptions
	command := &cobra.Command{
		Use:   "status [--json] [--watch]",
		Short: "Ask the running daemon how it is",
		Long: `Asks the running daemon for the state of each instance and of Vault.

Exit status: 0 if all is in sync, 3 if not, 1 if there is no daemon, 2 if the configuration is bad.`,
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, _ []string) error {
			// The socket is all that is needed. Whatever else is wrong is the daemon's business, and may be why status is asked.
			cfg, err := in.loadPart(c.Context())
			if bad, ok := errors.AsType[*config.Error](err); ok {
				err = bad.Touching("control_socket")
			}
			if err != nil {
				return &exit{exitUsage, err}
			}
			options.socket = cfg.ControlSocket
			return outcome(runStatus(c.Context(), in, options))
		},
	}
	command.Flags().BoolVar(&options.json, "json", false, "print JSON")
	command.Flags().BoolVar(&options.watch, "watch", false, "print again at each change, until interrupted")
	return command
}

// watchEvery is how often status --watch asks.
const watchEvery = 500 * time.Millisecond

func runStatus(ctx context.Context, in *invocation, options statusOptions) error {
	d, err := control.AskStatus(ctx, options.socket)
	if err != nil {
		return err
	}
	show(in.stdout, d, options.json)
	shown := shape(d)
	for options.watch {
		select {
		case <-ctx.Done():
			return nil // the watcher has seen enough
		case <-time.After(watchEvery):
		}
		if d, err = control.AskStatus(ctx, options.socket); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if now := shape(d); now != shown {
			shown = now
			if !options.json {
				fmt.Fprintln(in.stdout)
			}
			show(in.stdout, d, options.json)
		}
	}
	if !d.InSync() {
		return &exit{status: exitDiffers}
	}
	return nil
}

// shape is what is worth printing again when it changes: all but the times that change with every check.
func shape(d control.Status) string {
	var b strings.Builder
	for _, in := range d.Instances {
		in.LastCheck = nil
		json.NewEncoder(&b).Encode(in)
	}
	fmt.Fprint(&b, d.Vault.Reachable)
	return b.String()
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

func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}
