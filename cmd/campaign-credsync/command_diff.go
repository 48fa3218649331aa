package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/config"
	"campaign-credsync/sinks"
)

func newDiffCommand(in *invocation) *cobra.Command {
	var instance string
	command := &cobra.Command{
		Use:   "diff [--instance NAME]",
		Short: "Tell what differs, by attribute name",
		Long: `Compares Vault, what was applied and what is on disk, and names the attributes that differ. It prints no value and
writes nothing.

Exit status: 0 if nothing differs, 3 if there is drift or a version waits, 1 if it could not tell, 2 if the configuration
is bad.`,
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := in.loadWithInstance(c.Context(), instance)
			if err != nil {
				return err
			}
			return outcome(runDiff(c.Context(), in, cfg, instance))
		},
	}
	in.addInstanceFlag(command, &instance)
	return command
}

// runDiff names what differs.
func runDiff(ctx context.Context, in *invocation, c *config.Config, instance string) error {
	outlooks, err := assembly.Look(ctx, c, in.logger(c), instance)
	if err != nil {
		return err
	}
	failed, differs := false, false
	for _, o := range outlooks {
		if o.Err != nil {
			failed = true
			fmt.Fprintf(in.stderr, "%s: %v\n", o.Name, o.Err)
			continue
		}
		for _, name := range o.Drift {
			differs = true
			fmt.Fprintf(in.stdout, "%s: %s differs from what was applied\n", o.Name, name)
		}
		if o.Apply {
			differs = true
			for _, name := range sinks.Changes(*o.Credential, o.Seen) {
				fmt.Fprintf(in.stdout, "%s: %s changes with version %d, which waits to be applied (applied: %s)\n",
					o.Name, name, o.Version.Number, number(o.Applied.Number))
			}
		}
		if o.Refusal != nil {
			differs = true
			fmt.Fprintf(in.stdout, "%s: the secret is refused: %v\n", o.Name, o.Refusal)
		}
		for _, step := range o.Activation {
			differs = true
			fmt.Fprintf(in.stdout, "%s: activation waits: %s\n", o.Name, step)
		}
	}
	switch {
	case failed:
		return &exit{status: exitFailed}
	case differs:
		return &exit{status: exitDiffers}
	}
	return nil
}
