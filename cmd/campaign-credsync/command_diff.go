package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/config"
	"campaign-credsync/internal/logging"
	"campaign-credsync/sinks"
	"campaign-credsync/sync"
)

func newDiffCommand(in *invocation) *cobra.Command {
	c := in.command("diff [--instance NAME]", "Show what differs, by attribute name",
		`Compares Vault, what was applied and what is on disk, and names the attributes that differ. It prints no value and
writes nothing.

Exit status: 0 if nothing differs, 3 if there is drift or a version waits, is held or refused, 1 if it could not tell, 2 if
the configuration is bad.`,
		in.runDiff)
	in.addInstanceFlag(c)
	return c
}

func (in *invocation) runDiff(ctx context.Context) (int, error) {
	differs := false
	_, status, err := in.preview(ctx, func(instance string, p sync.Preview) {
		say := func(format string, args ...any) {
			differs = true
			fmt.Fprintf(in.stdout, "%s: %s\n", instance, fmt.Sprintf(format, args...))
		}
		for _, name := range p.Drift {
			say("%s differs from what was applied", name)
		}
		if !p.Next.IsZero() {
			for _, name := range sinks.Changes(p.Credential, p.Seen) {
				say("%s changes with version %v, which waits to be applied (applied: %s)", name, p.Next, number(p.Applied.Number))
			}
		}
		if p.Held {
			say("the first apply is held; to apply the source's credential, run sync; to keep what is on disk, run adopt")
		}
		if p.Refused != nil {
			say("the secret is refused: %v", p.Refused)
		}
		for _, step := range p.Activation {
			say("activation waits: %v", step)
		}
	})
	if status == exitOK && differs {
		return exitDiffers, nil
	}
	return status, err
}

// preview has show tell what a pass would do for each instance. The status is exitFailed if nobody can tell for one.
func (in *invocation) preview(ctx context.Context, show func(instance string, p sync.Preview)) (c *config.Config, status int, err error) {
	c, err = in.load(ctx)
	if err != nil {
		return c, exitUsage, err
	}
	log, closeLog := logging.New(c.Log, in.stderr, in.env, new(slog.LevelVar))
	defer closeLog()
	err = assembly.Preview(ctx, c, log, func(instance string, p sync.Preview, err error) {
		if err != nil {
			fmt.Fprintf(in.stderr, "%s: cannot tell: %v\n", instance, err)
			status = exitFailed
			return
		}
		show(instance, p)
	})
	if err != nil {
		return c, exitFailed, err
	}
	return c, status, nil
}
