package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// The Makefile sets both with -ldflags -X. version is the version alone, such as 0.1.0.
var version, commit = "devel", "unknown"

func newVersionCommand(in *invocation) *cobra.Command {
	return in.command("version", "Print version, commit and Go version", "", func(context.Context) (int, error) {
		fmt.Fprintf(in.stdout, "campaign-credsync %s\n", versionLine())
		return exitOK, nil
	})
}

func versionLine() string {
	return fmt.Sprintf("%s (commit %s, %s)", version, commit, runtime.Version())
}
