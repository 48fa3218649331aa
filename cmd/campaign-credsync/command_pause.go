package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/control"
)

func newPauseCommand(in *invocation) *cobra.Command {
	o := control.Order{Do: control.DoPause}
	c := in.command("pause --for DURATION [--instance NAME] [--reason TEXT]", "Write nothing for a while",
		`For a while, nothing is applied, reverted or activated. Polls and looks go on, and status tells what was found. The pause
begins after the step under way, and survives restarts and reloads. It ends by itself, or with "resume"; then everything
is made good, with activation.

Exit status: 0 if it is paused, 1 if not, 2 if the command line is wrong or the configuration is bad, 4 if the daemon may not be asked.`,
		func(ctx context.Context) (int, error) {
			if err := assembly.CheckPause(o.For); err != nil {
				return exitUsage, fmt.Errorf("--for: %w", err)
			}
			return in.order(ctx, o, func(control.Status) int {
				fmt.Fprintf(in.stdout, "paused until %s; to go on sooner: campaign-credsync resume\n", time.Now().Add(o.For).UTC().Format(time.RFC3339))
				return exitOK
			})
		})
	in.addInstanceFlag(c)
	c.Flags().DurationVar(&o.For, "for", 0, "how long, "+assembly.PauseBounds+": `DURATION` (such as 2h)")
	c.Flags().StringVar(&o.Reason, "reason", "", "why, for those who read the status: `TEXT`")
	c.MarkFlagRequired("for") // fails only for a flag that is not there
	return c
}

func newResumeCommand(in *invocation) *cobra.Command {
	c := in.command("resume [--instance NAME]", "End a pause",
		`Ends a pause. What changed meanwhile is made good, with activation.

Exit status: 0 if nothing is paused any more, 1 if that failed, 2 if the configuration is bad, 4 if the daemon may not be asked.`,
		func(ctx context.Context) (int, error) {
			return in.order(ctx, control.Order{Do: control.DoResume}, func(control.Status) int {
				fmt.Fprintln(in.stdout, "not paused")
				return exitOK
			})
		})
	in.addInstanceFlag(c)
	return c
}
