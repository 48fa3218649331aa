package main

import "github.com/spf13/cobra"

func newRunCommand(in *invocation) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Watch Vault and the instances, until SIGTERM or SIGINT",
		Long: `Runs the daemon in the foreground, as a service manager wants it. It watches Vault and the instances' configuration
files, applies new versions and puts back what drifted.

  SIGHUP   reads the configuration and the certificates again; a bad configuration is reported and the old one kept
  SIGUSR1  checks everything now
  SIGTERM  finishes the step under way and ends

Exit status: 0 after SIGTERM or SIGINT, 1 if it could not start, 2 if the configuration is bad.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := in.load()
			if err != nil {
				return err
			}
			return outcome(runDaemon(c.Context(), in, cfg))
		},
	}
}
