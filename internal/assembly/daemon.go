package assembly

import (
	"context"
	"fmt"
	"log/slog"
	stdsync "sync"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/internal/filewatch"
	"campaign-credsync/internal/signals"
	"campaign-credsync/internal/systemd"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// Options is what the daemon gets from its command line.
type Options struct {
	Config  *config.Config
	Load    func() (*config.Config, error) // reads the configuration again, for a reload
	Logger  *slog.Logger
	Level   *slog.LevelVar // of Logger; a reload sets it
	Version string
}

// process is the daemon over its reloads.
type process struct {
	Options
	control *control.Server
	service *systemd.Service

	*assembly                   // of the configuration in force
	daemon    *sync.Daemon      // of the assembly, or before its run of the one before
	closing   stdsync.WaitGroup // of each Vault that is no longer used
}

// Run is the daemon, until ctx ends. On SIGHUP a new assembly replaces the one that runs, and takes over in memory what it knows; the
// state directory stays locked all the time.
func Run(ctx context.Context, o Options) error {
	a, err := prepare(ctx, o.Config, o.Logger, time.Second)
	if err != nil {
		return err
	}
	p := &process{Options: o, service: systemd.New(), assembly: a}
	defer a.store.Close()
	defer func() { p.unlockFiles(nil) }()
	if p.control, err = control.Listen(o.Config.ControlSocket, o.Logger); err != nil {
		return err
	}
	defer p.control.Close()
	o.Logger.Info("started", "version", o.Version, "instances", len(a.settings.Instances))
	for {
		next := p.run(ctx)
		if next == nil {
			o.Logger.Info("stopped")
			return nil
		}
		p.unlockFiles(next)
		p.assembly = next
		o.Level.UnmarshalText([]byte(p.config.Log.Level)) // config has refused every other name
	}
}

const (
	startTimeout = 10 * time.Second // for what reads and writes small files
	// watchTimeout is how long what brings hints may take to end. A reload goes on without it, too.
	watchTimeout = 2 * time.Second
)

// prepare locks the state directory and the instances' files for this process: all of them, or none.
func prepare(ctx context.Context, c *config.Config, log *slog.Logger, patience time.Duration) (*assembly, error) {
	a, err := deadline.Run(ctx, startTimeout, "the start", func() (*assembly, error) {
		if err := checkUser(c); err != nil {
			return nil, err
		}
		store, err := state.Open(c.StateDir, patience)
		if err != nil {
			return nil, err
		}
		a, err := assemble(c, store, log, false, nil)
		if err != nil {
			store.Close()
		}
		return a, err
	})
	if err != nil {
		return nil, err
	}
	if err := a.lockFiles(nil, time.Second); err != nil {
		a.store.Close()
		return nil, err
	}
	return a, nil
}

// run runs the assembly until ctx ends, or SIGHUP has brought a configuration that is good: then it returns the next one.
func (p *process) run(ctx context.Context) *assembly {
	for _, warning := range p.config.Warnings {
		p.log.Warn("configuration", "reason", warning)
	}
	settings := p.settings
	settings.Before = p.daemon
	settings.OnStatus = func(s sync.Status) { p.service.Show(control.Summary(s.Instances)) }
	p.daemon = sync.New(settings)
	p.control.Serve(answers{p.daemon, p.assembly})

	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); p.daemon.Run(running) }()
	var hints stdsync.WaitGroup
	hints.Go(func() { p.watchSecrets(running, p.daemon) })
	hints.Go(func() { filewatch.Watch(running, p.watched(p.daemon), p.log) })
	hints.Go(func() { p.service.Watch(running, p.daemon.Ready(), p.daemon.Ping) })

	next := p.untilReload(running)
	if next == nil {
		p.log.Info("stopping", "reason", context.Cause(ctx))
		p.service.Stopping()
	}
	stop()
	_, err := deadline.Run(context.Background(), watchTimeout, "the watch of files", func() (struct{}, error) {
		hints.Wait()
		return struct{}{}, nil
	})
	<-ended // Run has its own limits
	if err != nil {
		p.log.Warn("no longer waiting for the end of the watches", "reason", err)
	}
	if next == nil || next.vault != p.vault {
		p.closing.Go(p.closeVault) // beside the next daemon, as Vault may hang
	}
	p.settle()
	if next == nil {
		p.closing.Wait()
	}
	return next
}

// untilReload acts on signals until ctx ends, then it returns nil, or until a reload has succeeded.
func (p *process) untilReload(ctx context.Context) *assembly {
	for {
		select {
		case <-signals.Check:
			p.log.Info("full check requested", "reason", "SIGUSR1")
			p.retry()
			p.daemon.CheckSoon()
		case <-signals.Reload:
			p.service.Reloading()
			next, err := p.reload(ctx)
			if next != nil {
				return next
			}
			if ctx.Err() == nil {
				p.log.Error("configuration not reloaded, keeping the old one", "reason", err)
				p.service.ReloadRefused()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// reload makes the next assembly from the configuration as it is now, and drains the daemon. When it fails, the daemon goes on.
func (p *process) reload(ctx context.Context) (*assembly, error) {
	a, err := deadline.Run(ctx, startTimeout, "the reload", p.reassemble)
	if err != nil {
		return nil, err
	}
	if err := a.lockFiles(p.assembly, 0); err != nil {
		return nil, err
	}
	p.log.Debug("configuration read, waiting for running steps to end")
	if err := p.daemon.Drain(); err != nil {
		a.unlockFiles(p.assembly)
		return nil, err
	}
	a.retry()          // a refused secret-id gets one more try
	a.nlserver.Retry() // a wrapper script may run another build now
	p.log.Info("configuration reloaded", "instances", len(a.settings.Instances))
	return a, nil
}

// reassemble reads the configuration again. Some keys can change by a restart only.
func (p *process) reassemble() (*assembly, error) {
	c, err := p.Load()
	if err != nil {
		return nil, err
	}
	for _, fixed := range []struct{ key, was, is string }{
		{"state_dir", p.config.StateDir, c.StateDir},
		{"control_socket", p.config.ControlSocket, c.ControlSocket},
		{"log.format", p.config.Log.Format, c.Log.Format},
	} {
		if fixed.was != fixed.is {
			return nil, c.At(fixed.key, fmt.Errorf("changes from %s to %s, which takes a restart", fixed.was, fixed.is))
		}
	}
	return assemble(c, p.store, p.log, false, p.assembly)
}

// watched are the instances' files, each with what tells the loop of its changes.
func (a *assembly) watched(daemon *sync.Daemon) []filewatch.File {
	var files []filewatch.File
	for n, i := range a.config.Instances {
		files = append(files, filewatch.File{Path: i.ConfigFile, Changed: func(lost bool) { daemon.Touched(n, lost) }})
	}
	return files
}
