package main

import (
	"context"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/control"
)

func newAdoptCommand(in *invocation) *cobra.Command {
	c := in.command("adopt [--instance NAME]", "Let what is on disk count as the applied credential",
		`Records the credential that is on disk as the applied one, and guards it from now on. Nothing is run. It stands for the
newest version that Vault has, or, while Vault is down, the last one that was seen: only another version is applied after
it. Whether its secret is Vault's cannot be known, as it is encrypted.

Exit status: 0 if it was adopted; 1 if not, also where the credential on disk is incomplete, or its client id or technical
account id differ from Vault's; 2 if the configuration is bad; 4 if the daemon may not be asked.`,
		func(ctx context.Context) (int, error) {
			return in.order(ctx, control.Order{Do: control.DoAdopt}, func(d control.Status) int {
				in.report(d)
				return exitOK
			})
		})
	in.addInstanceFlag(c)
	return c
}
