package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

func newSyncCommand(in *invocation) *cobra.Command {
	var dryRun bool
	c := command("sync [--instance NAME] [--dry-run]", "Do one pass: what run would do once",
		`Does one pass over the instances and ends. Where the daemon runs, the daemon does the pass and its result is reported.

Exit status: 0 if all is in sync, 1 if something failed, 2 if the configuration is bad.`,
		func(ctx context.Context) error {
			c, err := in.load(ctx)
			if err != nil {
				return err
			}
			if dryRun {
				return runDry(ctx, in, c)
			}
			return runSync(ctx, in, c)
		})
	in.addInstanceFlag(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	return c
}

// runSync does one pass, or has the daemon that runs do it.
func runSync(ctx context.Context, in *invocation, c *config.Config) error {
	status, err := assembly.Sync(ctx, c, in.logger(c))
	if errors.Is(err, state.ErrLocked) {
		status, err = control.AskSync(ctx, c.ControlSocket, in.instance)
	}
	if errors.Is(err, assembly.ErrWrongUser) { // a daemon that runs does it as the right one
		if byDaemon, failed := control.AskSync(ctx, c.ControlSocket, in.instance); !errors.Is(failed, control.ErrNoDaemon) {
			status, err = byDaemon, failed
		}
	}
	if err != nil {
		return err
	}
	return report(in, status)
}

// report prints the result of a pass, a line an instance.
func report(in *invocation, d control.Status) error {
	failed := false
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
		held := i.State == string(sync.StateActivationPending) && i.LastError == ""
		failed = failed || i.State != control.InSync && !held
	}
	if failed {
		return &exit{status: exitFailed}
	}
	return nil
}

// runDry tells what a pass would do. It fails where the pass would fail.
func runDry(ctx context.Context, in *invocation, c *config.Config) error {
	previews, err := assembly.Look(ctx, c, in.logger(c))
	if err != nil {
		return err
	}
	failed := false
	for _, p := range previews {
		say := func(format string, args ...any) {
			fmt.Fprintf(in.stdout, "%s: %s\n", p.Name, fmt.Sprintf(format, args...))
		}
		failed = failed || p.Err != nil || p.Refused != nil || p.Left != ""
		if p.Err != nil {
			say("cannot tell: %v", p.Err)
			continue
		}
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
	}
	if failed {
		return &exit{status: exitFailed}
	}
	return nil
}
