package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/sinks"
)

func newDiffCommand(in *invocation) *cobra.Command {
	c := command("diff [--instance NAME]", "Show what differs, by attribute name",
		`Compares Vault, what was applied and what is on disk, and names the attributes that differ. It prints no value and
writes nothing.

Exit status: 0 if nothing differs, 3 if there is drift or a version waits, 1 if it could not tell, 2 if the configuration
is bad.`,
		func(ctx context.Context) error { return runDiff(ctx, in) })
	in.addInstanceFlag(c)
	return c
}

func runDiff(ctx context.Context, in *invocation) error {
	c, err := in.load(ctx)
	if err != nil {
		return err
	}
	previews, err := assembly.Look(ctx, c, in.logger(c))
	if err != nil {
		return err
	}
	failed, differs := false, false
	for _, p := range previews {
		if p.Err != nil {
			failed = true
			fmt.Fprintf(in.stderr, "%s: %v\n", p.Name, p.Err)
			continue
		}
		differs = differs || !p.Next.IsZero()
		say := func(format string, args ...any) {
			differs = true
			fmt.Fprintf(in.stdout, "%s: %s\n", p.Name, fmt.Sprintf(format, args...))
		}
		for _, name := range p.Drift {
			say("%s differs from what was applied", name)
		}
		if !p.Next.IsZero() {
			for _, name := range sinks.Changes(p.Credential, p.Seen) {
				say("%s changes with version %v, which waits to be applied (applied: %s)", name, p.Next, number(p.Applied.Number))
			}
		}
		if p.Refused != nil {
			say("the secret is refused: %v", p.Refused)
		}
		for _, step := range p.Activation {
			say("activation waits: %v", step)
		}
	}
	switch {
	case failed:
		return &exit{status: exitFailed}
	case differs:
		return &exit{status: exitDiffers}
	}
	return nil
}
