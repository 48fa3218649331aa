package main

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"
)

func newCompletionCommand(in *invocation) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the completion script of a shell",
		Long: `Prints the completion script of a shell. To have it in every session:

  bash  campaign-credsync completion bash > /etc/bash_completion.d/campaign-credsync
  zsh   campaign-credsync completion zsh > "${fpath[1]}/_campaign-credsync"
  fish  campaign-credsync completion fish > ~/.config/fish/completions/campaign-credsync.fish`,
		ValidArgs:             []string{"bash", "zsh", "fish"},
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			switch root := c.Root(); {
			case slices.Equal(args, []string{"bash"}):
				return failed(root.GenBashCompletionV2(in.stdout, true))
			case slices.Equal(args, []string{"zsh"}):
				return failed(root.GenZshCompletion(in.stdout))
			case slices.Equal(args, []string{"fish"}):
				return failed(root.GenFishCompletion(in.stdout, true))
			}
			return errors.New("completion needs one of bash, zsh, fish")
		},
	}
}
