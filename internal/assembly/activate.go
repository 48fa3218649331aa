package assembly

import (
	"context"
	"log/slog"
	"net"
	"slices"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/nlserver"
)

// Activate is the activation service: it takes the step that a daemon asks for at the other end of conn, if the configuration has that
// step. The error says why nothing was run; the daemon was told, too.
func Activate(ctx context.Context, conn net.Conn, load func() (*config.Config, error), log *slog.Logger) error {
	step, err := nlserver.ReadRequest(conn) // first, as whoever asks for nothing should cost nothing
	var c *config.Config
	if err == nil {
		c, err = load()
	}
	if err == nil {
		err = checkUser(c)
	}
	if err != nil {
		nlserver.Refuse(conn, err)
		return err
	}
	a := &assembly{config: c, log: log}
	var steps []credential.Step
	for _, i := range c.Instances {
		steps = slices.Concat(steps, nlserver.Steps(c.Campaign.Activate.Reload, c.Campaign.Activate.Restart, i.Name))
	}
	return nlserver.New(a.nlserverConfig()).Serve(ctx, conn, step, steps)
}
