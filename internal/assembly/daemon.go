package assembly

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	stdsync "sync"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/internal/history"
	"campaign-credsync/internal/metrics"
	"campaign-credsync/internal/signals"
	"campaign-credsync/internal/systemd"
	"campaign-credsync/internal/web"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// Options is what the daemon gets from its command line.
type Options struct {
	Config  *config.Config
	Load    func() (*config.Config, error) // reads the configuration again, for a reload
	Logger  *slog.Logger
	Level   *slog.LevelVar // of Logger; a reload sets it
	File    string         // of the configuration
	Version string
	Commit  string
}

const (
	startTimeout = 10 * time.Second // for what reads and writes small files
	// watchTimeout is how long what brings hints may take to end. A reload goes on without it, too.
	watchTimeout = 2 * time.Second
	// gcPercent has garbage collected when there are 1.8 MiB with the stacks, and not Go's 4: the daemon lives for months and needs 0.7.
	gcPercent = 25
)

// Run is the daemon, until ctx ends. On SIGHUP a new assembly replaces the one that runs, and takes over in memory what it knows; the
// state directory stays locked all the time.
func Run(ctx context.Context, o Options) error {
	debug.SetGCPercent(gcPercent)
	meter := metrics.New(o.Version, o.Commit, runtime.Version())
	a, err := prepare(ctx, o.Config, o.Logger, time.Second, &assembly{meter: meter})
	if err != nil {
		return err
	}
	defer a.store.Close()
	defer func() { a.unlockFiles(&assembly{}) }()
	p := &process{Options: o, started: time.Now(), meter: meter, service: systemd.New()}
	if o.Config.Listen != "" {
		page, err := web.Listen(o.Config.Listen, p.web())
		if err != nil {
			return o.Config.At("listen", err)
		}
		defer page.Close()
	}
	if p.control, err = control.Listen(o.Config.ControlSocket, o.Config.ControlGroup, o.Logger); err != nil {
		return err
	}
	defer p.control.Close()
	o.Logger.Info("started", "version", o.Version, "config", o.File, "instances", len(o.Config.Instances), "source", sourcesOf(o.Config),
		"poll", o.Config.Watch.Poll, "verify", o.Config.Schedule.Verify)
	p.history = history.Open(o.Config.StateDir, o.Logger)
	for {
		next := p.run(ctx, a)
		if next == nil {
			o.Logger.Info("stopped")
			return nil
		}
		a.unlockFiles(next)
		a = next
		o.Level.UnmarshalText([]byte(a.config.Log.Level)) // config has refused every other name
	}
}

// sourcesOf names where credentials come from.
func sourcesOf(c *config.Config) (sources []string) {
	for _, in := range c.Instances {
		from := c.Vault.Address
		if in.Source == config.SourceFile {
			from = in.File
		}
		if !slices.Contains(sources, from) {
			sources = append(sources, from)
		}
	}
	return sources
}

// prepare locks the state directory and the instances' files for this process: all of them, or none.
func prepare(ctx context.Context, c *config.Config, log *slog.Logger, patience time.Duration, before *assembly) (*assembly, error) {
	a, err := deadline.Run(ctx, startTimeout, "the start", deadline.Disk, func() (*assembly, error) {
		if err := checkUser(c); err != nil {
			return nil, err
		}
		store, err := state.Open(c.StateDir, patience)
		if err != nil {
			return nil, err
		}
		a, err := assemble(c, store, log, false, before)
		if err != nil {
			store.Close()
		}
		return a, err
	})
	if err != nil {
		return nil, err
	}
	if err := a.lockFiles(&assembly{}); err != nil {
		a.store.Close()
		return nil, err
	}
	return a, nil
}

// process is what stays of the daemon over its reloads.
type process struct {
	Options
	started time.Time
	meter   *metrics.Metrics
	history *history.Log
	current atomic.Pointer[inForce]
	control *control.Server
	service *systemd.Service
	closing stdsync.WaitGroup // of each Vault and hook that is no longer used
	toldEnd time.Time         // of the secret-id, by an event
	reading stdsync.Mutex     // held by whoever is answered with the history, which takes 16 MiB at most
}

// run runs an assembly until ctx ends, or until SIGHUP has brought a configuration that is good: then it returns the next one.
func (p *process) run(ctx context.Context, a *assembly) *assembly {
	for _, warning := range a.config.Warnings {
		p.Logger.Warn("configuration", "reason", warning)
	}
	settings := a.settings
	settings.Before = a.daemon
	settings.OnStatus = func([]sync.InstanceStatus) {
		p.service.Changed()
		p.showEnd(a)
	}
	settings.OnEvent = p.tell
	a.daemon = sync.New(settings)
	p.loaded(a)
	p.control.Serve(p)

	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); a.daemon.Run(running) }()
	var hints stdsync.WaitGroup
	hints.Go(func() { a.watch(running) })
	hints.Go(func() {
		p.service.Watch(running, a.daemon.Ready(), a.daemon.Ping, func() string { return control.Summary(a.daemon.Status()) })
	})

	next := p.untilReload(running, a)
	if next == nil {
		p.Logger.Info("stopping", "reason", context.Cause(ctx))
		p.service.Stopping()
	}
	stop()
	_, err := deadline.Run(context.Background(), watchTimeout, "the watch of files", deadline.Disk, func() (struct{}, error) {
		hints.Wait()
		return struct{}{}, nil
	})
	<-ended // Run has its own limits
	if err != nil {
		p.Logger.Warn("no longer waiting for the end of the watches", "reason", err)
	}
	if next == nil || next.vault != a.vault {
		p.closing.Go(a.closeVault) // beside the next daemon, as Vault may hang
	}
	a.settle()
	if next == nil {
		p.close()
	}
	return next
}

// untilReload acts on signals until ctx ends, then it returns nil, or until a reload has succeeded.
func (p *process) untilReload(ctx context.Context, a *assembly) *assembly {
	for {
		select {
		case <-signals.Check:
			p.Logger.Info("full check requested", "reason", "SIGUSR1")
			a.retry()
			a.daemon.AskAdobeAgain()
			a.daemon.CheckSoon()
		case <-signals.Reload:
			p.service.Reloading()
			next, err := p.reload(ctx, a)
			if next != nil {
				return next
			}
			if ctx.Err() == nil {
				p.rejected(err)
				p.service.ReloadRefused()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// reload makes the next assembly from the configuration as it is now, and drains the daemon. When it fails, the daemon goes on.
func (p *process) reload(ctx context.Context, a *assembly) (*assembly, error) {
	next, err := deadline.Run(ctx, startTimeout, "the reload", deadline.Disk, func() (*assembly, error) { return p.reassemble(a) })
	if err != nil {
		return nil, err
	}
	if err := next.lockFiles(a); err != nil {
		return nil, err
	}
	p.Logger.Debug("configuration read, waiting for running steps to end")
	if err := a.daemon.Drain(); err != nil {
		next.unlockFiles(a)
		return nil, err
	}
	next.retry()          // a refused secret-id gets one more try
	next.nlserver.Retry() // so does a module whose restarts failed
	p.Logger.Info("configuration reloaded", "instances", len(next.config.Instances))
	return next, nil
}

// reassemble reads the configuration again. Some keys can change by a restart only.
func (p *process) reassemble(a *assembly) (*assembly, error) {
	c, err := p.Load()
	if err != nil {
		return nil, err
	}
	for _, fixed := range []struct{ key, was, is string }{
		{"state_dir", a.config.StateDir, c.StateDir},
		{"control_socket", a.config.ControlSocket, c.ControlSocket},
		{"control_group", a.config.ControlGroup, c.ControlGroup},
		{"listen", a.config.Listen, c.Listen},
		{"log.format", a.config.Log.Format, c.Log.Format},
	} {
		if fixed.was != fixed.is {
			return nil, c.At(fixed.key, fmt.Errorf("changes from %s to %s, which takes a restart", fixed.was, fixed.is))
		}
	}
	return assemble(c, a.store, p.Logger, false, a)
}
