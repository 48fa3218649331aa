package main

import "github.com/spf13/cobra"

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
			cfg, err := loadWithInstance(in, instance)
			if err != nil {
				return err
			}
			return outcome(runDiff(c.Context(), in, cfg, instance))
		},
	}
	addInstanceFlag(command, in, &instance)
	return command
}
