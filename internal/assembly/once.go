package assembly

import (
	"context"
	"log/slog"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// lookTimeout is for a look that asks Vault too.
const lookTimeout = time.Minute

// Sync does one pass. It answers state.ErrLocked when a daemon runs.
func Sync(ctx context.Context, c *config.Config, log *slog.Logger) (control.Status, error) {
	a, err := prepare(ctx, c, log, 0)
	if err != nil {
		return control.Status{}, err
	}
	defer a.store.Close()
	defer a.unlockFiles(&assembly{})
	defer a.closeVault()
	a.daemon = sync.New(a.settings)
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { a.daemon.Run(running); close(ended) }()
	select {
	case <-a.daemon.Ready():
	case <-ctx.Done():
	}
	status := a.Status()
	stop()
	<-ended
	a.settle()
	return status, ctx.Err()
}

// Look compares what is wanted, applied and on disk, and has show tell what a pass would do for each instance, or why nobody knows. It
// takes no lock, and writes one thing only: a login that may be refused, so that the next command does not try it again; for that it
// makes the state directory if there is none.
func Look(ctx context.Context, c *config.Config, log *slog.Logger, show func(instance string, p sync.Preview, err error)) error {
	a, err := deadline.Run(ctx, startTimeout, "the start", func() (*assembly, error) {
		return assemble(c, state.Read(c.StateDir), log, true, &assembly{})
	})
	if err != nil {
		return err
	}
	defer a.closeVault()
	for _, one := range a.settings.Instances {
		settings := a.settings
		settings.Instances = []sync.Instance{one}
		p, err := deadline.Run(ctx, lookTimeout, "the look", func() (sync.Preview, error) { return sync.Look(ctx, settings) })
		show(one.Name, p, err)
	}
	return nil
}
