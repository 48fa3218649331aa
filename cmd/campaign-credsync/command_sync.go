package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync"
)

func newSyncCommand(in *invocation) *cobra.Command {
	var dryRun bool
	c := in.command("sync [--instance NAME] [--dry-run]", "Do one pass: what run would do once",
		`Does one pass over the instances and ends. Where the daemon runs, the daemon does the pass and its result is reported.

Where a first apply is held, this is the word that it waits for.

Exit status: 0 if all is in sync, 1 if something failed, 2 if the configuration is bad; with --dry-run 3 if something would
be done; 4 if the daemon may not be asked.`,
		func(ctx context.Context) (int, error) {
			if dryRun {
				return in.runDry(ctx)
			}
			return in.runSync(ctx)
		})
	in.addInstanceFlag(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	return c
}

// runSync does one pass.
func (in *invocation) runSync(ctx context.Context) (int, error) {
	return in.order(ctx, control.Order{Do: control.DoSync}, in.report)
}

// report prints the result of a pass, a line an instance, and returns the exit status.
func (in *invocation) report(d control.Status) int {
	status := exitOK
	for _, i := range d.Instances {
		if in.instance != "" && i.Name != in.instance {
			continue
		}
		line := fmt.Sprintf("%s: %s", i.Name, i.State)
		if i.AppliedVersion != 0 {
			line += fmt.Sprintf(", version %d applied", i.AppliedVersion)
		}
		if i.LastError != "" {
			line += ": " + i.LastError
		}
		fmt.Fprintln(in.stdout, line)
		// Activation that waits for its schedule is what the configuration asks for.
		held := i.State == sync.StateActivationPending && i.LastError == ""
		if i.State != sync.StateInSync && !held {
			status = exitFailed
		}
	}
	return status
}

// runDry tells what a pass would do. It fails where the pass would fail.
func (in *invocation) runDry(ctx context.Context) (int, error) {
	failed, differs := false, false
	status, err := in.preview(ctx, func(p sync.Preview, say func(string, ...any)) {
		failed = failed || p.Refused != nil || p.Left != ""
		differs = differs || len(p.Steps) > 0
		if p.Refused != nil {
			say("would keep what is applied: %v", p.Refused)
		}
		if p.Left != "" {
			say("would leave drift of %s: %s", strings.Join(p.Drift, ", "), p.Left)
		}
		if len(p.Steps) > 0 {
			say("would %s", strings.Join(p.Steps, ", then "))
		} else if p.Refused == nil && p.Left == "" {
			say("in sync, nothing to do")
		}
	})
	switch {
	case failed:
		return exitFailed, err
	case status == exitOK && differs:
		return exitDiffers, err
	}
	return status, err
}
