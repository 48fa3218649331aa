package main

import "github.com/spf13/cobra"

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
			cfg, err := loadWithInstance(in, options.instance)
			if err != nil {
				return err
			}
			return outcome(runSync(c.Context(), in, cfg, options))
		},
	}
	addInstanceFlag(command, in, &options.instance)
	command.Flags().BoolVar(&options.dryRun, "dry-run", false, "only tell what would be done")
	return command
}
