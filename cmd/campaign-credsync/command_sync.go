package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// syncOptions is what the command line of sync says. An instance that is not empty is in the configuration.
type syncOptions struct {
	instance string // empty: all
	dryRun   bool
}

func newSyncCommand(in *invocation) *cobra.Command {
	var options syncOptions
	command := &cobra.Command{
		Use:   "sync [--instance NAME] [--dry-run]",
		Short: "Do one pass: what run would do once",
		Long: `Does one pass over the instances and ends. Where the daemon runs, the daemon does the pass and its result is reported.

Exit status: 0 if all is in sync, 1 if something failed, 2 if the configuration is bad.`,
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := in.loadWithInstance(c.Context(), options.instance)
			if err != nil {
				return err
			}
			return outcome(runSync(c.Context(), in, cfg, options))
		},
	}
	in.addInstanceFlag(command, &options.instance)
	command.Flags().BoolVar(&options.dryRun, "dry-run", false, "only tell what would be done")
	return command
}

// runSync does one pass, or has the daemon that runs do it.
func runSync(ctx context.Context, in *invocation, c *config.Config, options syncOptions) error {
	if options.dryRun {
		return runDry(ctx, in, c, options.instance)
	}
	status, err := assembly.Sync(ctx, c, in.logger(c), options.instance)
	if errors.Is(err, state.ErrLocked) {
		status, err = askSync(ctx, c, options.instance)
	}
	if errors.Is(err, assembly.ErrWrongUser) { // a daemon that runs does it as the right one
		if byDaemon, failed := askSync(ctx, c, options.instance); !errors.Is(failed, control.ErrNoDaemon) {
			status, err = byDaemon, failed
		}
	}
	if err != nil {
		return err
	}
	return report(in.stdout, status)
}

// askSync has the daemon do the pass.
func askSync(ctx context.Context, c *config.Config, instance string) (control.Status, error) {
	status, err := control.AskSync(ctx, c.ControlSocket, instance)
	if instance != "" {
		status.Instances = slices.DeleteFunc(status.Instances, func(in control.Instance) bool { return in.Name != instance })
	}
	return status, err
}

// report prints the result of a pass, a line an instance.
func report(w io.Writer, d control.Status) error {
	failed := false
	for _, in := range d.Instances {
		line := fmt.Sprintf("%s: %s", in.Name, in.State)
		if in.AppliedVersion != 0 {
			line += fmt.Sprintf(", version %d applied", in.AppliedVersion)
		}
		if in.LastError != "" {
			line += ": " + in.LastError
		}
		fmt.Fprintln(w, line)
		// Activation that waits for its schedule is what the configuration asks for.
		held := in.State == string(sync.StateActivationPending) && in.LastError == ""
		failed = failed || in.State != control.InSync && !held
	}
	if failed {
		return &exit{status: exitFailed}
	}
	return nil
}

// runDry tells what a pass would do. It fails where the pass would fail.
func runDry(ctx context.Context, in *invocation, c *config.Config, instance string) error {
	outlooks, err := assembly.Look(ctx, c, in.logger(c), instance)
	if err != nil {
		return err
	}
	failed := false
	for _, o := range outlooks {
		switch {
		case o.Err != nil:
			failed = true
			fmt.Fprintf(in.stdout, "%s: cannot tell: %v\n", o.Name, o.Err)
		case o.Refusal != nil:
			failed = true
			fmt.Fprintf(in.stdout, "%s: would keep what is applied: %v\n", o.Name, o.Refusal)
		case o.Apply:
			fmt.Fprintf(in.stdout, "%s: would apply version %d (applied: %s)\n", o.Name, o.Version.Number, number(o.Applied.Number))
		case len(o.Drift) > 0 && c.Drift.Revert == string(sync.RevertAlert):
			failed = true
			fmt.Fprintf(in.stdout, "%s: would leave drift of %s (drift.revert: alert)\n", o.Name, strings.Join(o.Drift, ", "))
		case o.Braked:
			failed = true
			fmt.Fprintf(in.stdout, "%s: would leave drift of %s for now: more than drift.max_reverts reverts in an hour\n", o.Name, strings.Join(o.Drift, ", "))
		case len(o.Drift) > 0:
			fmt.Fprintf(in.stdout, "%s: would put back %s\n", o.Name, strings.Join(o.Drift, ", "))
		case len(o.Activation) > 0:
			fmt.Fprintf(in.stdout, "%s: would activate: %s\n", o.Name, joined(o.Activation))
		default:
			fmt.Fprintf(in.stdout, "%s: in sync, nothing to do\n", o.Name)
		}
	}
	if failed {
		return &exit{status: exitFailed}
	}
	return nil
}

func joined(steps []credential.Step) string {
	var names []string
	for _, step := range steps {
		names = append(names, step.String())
	}
	return strings.Join(names, ", ")
}
