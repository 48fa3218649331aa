package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// A release sets these with -ldflags "-X main.version=… -X main.commit=…"; else they come from the build information.
var version, commit string

func newVersionCommand(in *invocation) *cobra.Command {
	return command("version", "Print version, commit and Go version", "", func(context.Context) error {
		_, err := fmt.Fprintf(in.stdout, "campaign-credsync %s\n", versionLine())
		return err
	})
}

func versionLine() string {
	return fmt.Sprintf("%s (commit %s, %s)", buildVersion(), buildCommit(), runtime.Version())
}

// buildVersion is the version alone, such as 0.1.0.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	switch {
	case version != "":
		return version
	case ok && info.Main.Version != "" && info.Main.Version != "(devel)":
		return info.Main.Version
	}
	return "devel"
}

func buildCommit() string {
	settings := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
	}
	revision := cmp.Or(commit, settings["vcs.revision"], "unknown")
	if commit == "" && settings["vcs.modified"] == "true" {
		revision += ", modified"
	}
	return revision
}
