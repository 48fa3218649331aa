package assembly

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/internal/history"
	"campaign-credsync/sinks/nlserver"
	"campaign-credsync/sources/vault"
	"campaign-credsync/sync"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// previewTimeout is for a preview, which asks the source too.
const previewTimeout = time.Minute

// Once carries out an order where no daemon runs. It answers state.ErrLocked where one does.
func Once(ctx context.Context, c *config.Config, log *slog.Logger, o control.Order) (control.Status, error) {
	a, err := prepare(ctx, c, log, 0, &assembly{})
	if err != nil {
		return control.Status{}, err
	}
	defer a.store.Close()
	defer a.unlockFiles(&assembly{})
	defer a.closeVault()
	past := history.Open(c.StateDir, log)
	defer past.Close(closeTime)
	tell := func(e event.Event) { past.Append(stamped(e)) }
	if o.Do == control.DoPause || o.Do == control.DoResume {
		return control.Status{}, a.pause(o, tell)
	}
	a.settings.OnEvent = tell
	a.settings.Ordered, a.settings.OnlyLooks = o.Do == control.DoSync, o.Do != control.DoSync
	a.daemon = sync.New(a.settings)
	if o.Do == control.DoSync {
		a.nlserver.Retry() // restarts that failed for an earlier daemon are tried again
		if err := a.daemon.Ask(ctx, o.ByUID); err != nil {
			return control.Status{}, err
		}
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { a.daemon.Run(running); close(ended) }()
	select {
	case <-a.daemon.Ready():
	case <-ctx.Done():
	}
	if o.Do == control.DoAdopt {
		err = a.daemon.Adopt(ctx, o.ByUID)
	}
	status := a.document(a.daemon.Status())
	stop()
	<-ended
	a.settle()
	return status, cmp.Or(err, ctx.Err())
}

// pause pauses, or resumes, the instances of an assembly that does not run.
func (a *assembly) pause(o control.Order, tell func(event.Event)) error {
	var pause *state.Pause
	if o.Do == control.DoPause {
		asked, err := pauseOf(o)
		if err != nil {
			return err
		}
		pause = &asked
	}
	for _, i := range a.config.Instances {
		if err := sync.PauseRecord(a.store, i.Name, pause, o.ByUID, tell); err != nil {
			return err
		}
	}
	return nil
}

// Preview compares what is wanted, applied and on disk, and has show tell what a pass would do for each instance, or why nobody knows. It
// takes no lock, and writes one thing only: a login that may be refused, so that the next command does not try it again; for that it
// makes the state directory if there is none.
func Preview(ctx context.Context, c *config.Config, log *slog.Logger, show func(instance string, p sync.Preview, err error)) error {
	a, err := deadline.Run(ctx, startTimeout, "the start", deadline.Disk, func() (*assembly, error) {
		return assemble(c, state.Read(c.StateDir), log, true, &assembly{})
	})
	if err != nil {
		return err
	}
	defer a.closeVault()
	for _, one := range a.settings.Instances {
		settings := a.settings
		settings.Instances = []sync.Instance{one}
		p, err := deadline.Run(ctx, previewTimeout, "the preview", "see whether the disk or mount, and the source, answer", func() (sync.Preview, error) { return sync.PreviewOf(ctx, settings) })
		show(one.Name, p, err)
	}
	return nil
}

// Examine logs in to Vault, asks what that login may do, and revokes the token. As Look, it does not try what was refused, unwraps
// nothing, and writes only that a login may have been refused. For who sees that no daemon runs.
func Examine(ctx context.Context, c *config.Config, log *slog.Logger) (vault.Examination, error) {
	a := &assembly{config: c, store: state.Read(c.StateDir), log: log}
	if err := a.useVault(true, &assembly{}); err != nil {
		return vault.Examination{}, err
	}
	defer a.closeVault()
	return a.examine(ctx), nil
}

// InspectNLServer has nlserver tell of itself. It answers ErrWrongUser to root where Campaign belongs to another user.
func InspectNLServer(ctx context.Context, c *config.Config, log *slog.Logger) (nlserver.Inspection, error) {
	if err := checkUser(c); err != nil {
		return nlserver.Inspection{}, err
	}
	a := &assembly{config: c, log: log}
	return nlserver.New(a.nlserverConfig()).Inspect(ctx)
}

// Option tells by which option of nlserver config a credential would be applied. It asks nlserver where campaign.command is auto, but not
// as root where Campaign belongs to another user: then it is auto.
func Option(ctx context.Context, c *config.Config, log *slog.Logger) (string, error) {
	if checkUser(c) != nil {
		return c.Campaign.Command, nil
	}
	a := &assembly{config: c, log: log}
	return nlserver.New(a.nlserverConfig()).Option(ctx)
}
