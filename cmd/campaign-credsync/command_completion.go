package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
)

func newCompletionCommand(in *invocation) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the completion script of a shell",
		Long: `Prints the completion script of a shell. To have it in every session:

  bash  campaign-credsync completion bash > /etc/bash_completion.d/campaign-credsync
  zsh   campaign-credsync completion zsh > "${fpath[1]}/_campaign-credsync"
  fish  campaign-credsync completion fish > ~/.config/fish/completions/campaign-credsync.fish`,
		ValidArgs:             shells,
		DisableFlagsInUseLine: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return fmt.Errorf("completion needs one of bash, zsh, fish")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			switch args[0] {
			case "bash":
				err = c.Root().GenBashCompletionV2(in.stdout, true)
			case "zsh":
				err = c.Root().GenZshCompletion(in.stdout)
			case "fish":
				err = c.Root().GenFishCompletion(in.stdout, true)
			}
			return outcome(err)
		},
	}
}
