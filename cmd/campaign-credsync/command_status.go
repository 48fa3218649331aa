package main

import "github.com/spf13/cobra"

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
			cfg, bad := readConfig(in.configFile, in.env)
			if bad = bad.touching("control_socket"); bad != nil {
				return &exit{exitUsage, bad}
			}
			options.socket = cfg.ControlSocket
			return outcome(runStatus(c.Context(), in, options))
		},
	}
	command.Flags().BoolVar(&options.json, "json", false, "print JSON")
	command.Flags().BoolVar(&options.watch, "watch", false, "print again at each change, until interrupted")
	return command
}
