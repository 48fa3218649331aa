package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// A release sets these with -ldflags "-X main.version=… -X main.commit=…"; else they come from the build information.
var version, commit string

func newVersionCommand(in *invocation) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(in.stdout, "%s %s\n", c.Root().Name(), versionLine())
			return outcome(err)
		},
	}
}

// buildVersion is the version alone, such as 0.1.0.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func buildCommit() string {
	revision, modified := commit, ""
	if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = ", modified"
			}
		}
	}
	if revision == "" {
		return "unknown"
	}
	return revision + modified
}

func versionLine() string {
	return fmt.Sprintf("%s (commit %s, %s)", buildVersion(), buildCommit(), runtime.Version())
}
