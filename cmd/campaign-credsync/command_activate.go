package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/config"
	"campaign-credsync/internal/deadline"
)

func newActivateCommand(in *invocation) *cobra.Command {
	c := in.command("activate", "Take a step of activation for the daemon",
		`Takes one step of activation that the daemon asks for, outside of the daemon's control group and sandbox. The request comes
over a socket on standard input: campaign-credsync-activate@.service runs it.

Exit status: 0 after a step that was begun, however it ended, or was refused; 1 if there is no socket.`,
		in.activate)
	c.Hidden = true
	return c
}

func (in *invocation) activate(ctx context.Context) (int, error) {
	conn, err := net.FileConn(os.Stdin)
	if err != nil {
		return exitFailed, fmt.Errorf("standard input is no socket: campaign-credsync-activate@.service runs this command (%w)", err)
	}
	defer conn.Close()
	log := slog.New(slog.DiscardHandler) // the daemon tells what came of it
	err = assembly.Activate(ctx, conn, func() (*config.Config, error) {
		return deadline.Run(ctx, loadTimeout, in.configFile+": reading it", deadline.Disk, func() (*config.Config, error) {
			return config.LoadForActivation(in.configFile, in.env)
		})
	}, log)
	// A refusal is no failure of the service, which has answered.
	return exitOK, err
}
