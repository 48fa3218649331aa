package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// needsPackage is put in front of the script for bash, which calls functions of that package.
const needsPackage = `if ! declare -F _init_completion >/dev/null && ! declare -F _get_comp_words_by_ref >/dev/null; then
    echo "campaign-credsync: completion needs bash-completion: install that package and open a new shell" >&2
    return 1 2>/dev/null || exit 1
fi
`

// completes gives root its command completion, whose script for bash says when bash-completion is missing.
func completes(root *cobra.Command, stdout io.Writer) {
	root.InitDefaultCompletionCmd("completion")
	bash, _, err := root.Find([]string{"completion", "bash"})
	if err != nil || bash.RunE == nil {
		return
	}
	script := bash.RunE
	bash.RunE = func(c *cobra.Command, args []string) error {
		fmt.Fprint(stdout, needsPackage)
		return script(c, args)
	}
}

// plainUsage takes the backticks, which mark a flag's value for help, out of what completion shows.
func plainUsage(c *cobra.Command) {
	plain := func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") }
	c.PersistentFlags().VisitAll(plain)
	c.Flags().VisitAll(plain)
	for _, inner := range c.Commands() {
		plainUsage(inner)
	}
}
