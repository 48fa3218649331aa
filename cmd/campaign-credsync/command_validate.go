package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func newValidateCommand(in *invocation) *cobra.Command {
	var effective bool
	c := in.command("validate [--effective]", "Check the configuration",
		`Checks the configuration file without network. All problems go to standard error, one per line, as
FILE:LINE:COLUMN: KEY: PROBLEM. --effective prints the effective configuration: every default filled in, variables replaced,
the role-id masked.

Exit status: 0 if the configuration is good, 2 if not.`,
		func(ctx context.Context) (int, error) {
			c, err := in.load(ctx)
			if err != nil {
				return exitUsage, err
			}
			for _, warning := range c.Warnings {
				fmt.Fprintf(in.stderr, "warning: %s\n", warning)
			}
			if !effective {
				fmt.Fprintf(in.stdout, "%s is valid\n", in.configFile)
			} else if err := c.Effective(in.stdout); err != nil {
				return exitFailed, err
			}
			return exitOK, nil
		})
	c.Flags().BoolVar(&effective, "effective", false, "print the effective configuration")
	return c
}
