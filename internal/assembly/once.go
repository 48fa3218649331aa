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
	defer a.unlockFiles(nil)
	defer a.closeVault()
	daemon := sync.New(a.settings)
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { daemon.Run(running); close(ended) }()
	select {
	case <-daemon.Ready():
	case <-ctx.Done():
	}
	status := a.document(daemon.Status())
	stop()
	<-ended
	a.settle()
	return status, ctx.Err()
}

// Preview is what a pass would do for an instance, or why nobody can tell.
type Preview struct {
	Name string
	sync.Preview
	Err error
}

// Look compares what is wanted, applied and on disk. It takes no lock, and writes one thing only: a login that may be refused, so that
// the next command does not try it again; for that it makes the state directory if there is none.
func Look(ctx context.Context, c *config.Config, log *slog.Logger) ([]Preview, error) {
	a, err := deadline.Run(ctx, startTimeout, "the start", func() (*assembly, error) {
		return assemble(c, state.Read(c.StateDir), log, true, nil)
	})
	if err != nil {
		return nil, err
	}
	defer a.closeVault()
	var previews []Preview
	for _, one := range a.settings.Instances {
		settings := a.settings
		settings.Instances = []sync.Instance{one}
		p, err := deadline.Run(ctx, lookTimeout, "the look", func() (sync.Preview, error) { return sync.Look(ctx, settings) })
		previews = append(previews, Preview{one.Name, p, err})
	}
	return previews, nil
}
