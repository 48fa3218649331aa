package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newValidateCommand(in *invocation) *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration and print what it comes to",
		Long: `Checks the configuration file without network, and prints the effective configuration: every default filled in,
variables replaced, the role-id masked. All problems go to standard error, one per line, as FILE:LINE:COLUMN: KEY: PROBLEM.

Exit status: 0 if the configuration is good, 2 if not.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := in.load(c.Context())
			if err != nil {
				return err
			}
			for _, warning := range cfg.Warnings {
				fmt.Fprintf(in.stderr, "warning: %s\n", warning)
			}
			return outcome(cfg.Effective(in.stdout))
		},
	}
}
