package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync"
)

func newSyncCommand(in *invocation) *cobra.Command {
	var dryRun, asJSON bool
	c := in.command("sync [--instance NAME] [--dry-run] [--json]", "Do one pass: what run would do once",
		`Does one pass over the instances and ends. Where the daemon runs, the daemon does the pass and its result is reported.
Where a first apply is held, this is the order that it waits for.

--dry-run does nothing, and names each step instead: what nlserver writes and with which option, what is put back into
the file, the reload, each module that restarts, and why. It may run "nlserver config -?", which lists the options.
--json prints what "status --json" does, with --dry-run the steps.

Exit status: 0 if all is in sync, 1 if something failed, 2 if the configuration is bad; with --dry-run 3 if something would
be done; 4 if the daemon may not be asked.`,
		func(ctx context.Context) (int, error) {
			switch {
			case dryRun:
				return in.runDry(ctx, asJSON)
			case asJSON:
				return in.order(ctx, control.Order{Do: control.DoSync}, in.reportJSON)
			}
			return in.order(ctx, control.Order{Do: control.DoSync}, in.report)
		})
	in.addInstanceFlag(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// report prints the result of a pass, a line an instance, and returns the exit status.
func (in *invocation) report(d control.Status) int {
	status := exitOK
	for _, i := range in.asked(d.Instances) {
		line := fmt.Sprintf("%s: %s", i.Name, i.State)
		if i.AppliedVersion != 0 {
			line += fmt.Sprintf(", version %d applied", i.AppliedVersion)
		}
		if i.LastError != "" {
			line += ": " + i.LastError
		}
		fmt.Fprintln(in.stdout, line)
		if !isSynced(i) {
			status = exitFailed
		}
	}
	return status
}

func (in *invocation) reportJSON(d control.Status) int {
	d.Instances = in.asked(d.Instances)
	json.NewEncoder(in.stdout).Encode(d)
	if slices.ContainsFunc(d.Instances, func(i sync.InstanceStatus) bool { return !isSynced(i) }) {
		return exitFailed
	}
	return exitOK
}

// asked are the instances that the user asked for.
func (in *invocation) asked(all []sync.InstanceStatus) []sync.InstanceStatus {
	return slices.DeleteFunc(slices.Clone(all), func(i sync.InstanceStatus) bool { return in.instance != "" && i.Name != in.instance })
}

// isSynced reports whether a pass did what the configuration asks for, by which activation may wait for its schedule.
func isSynced(i sync.InstanceStatus) bool {
	return i.State == sync.StateInSync || i.State == sync.StateActivationPending && i.LastError == ""
}
