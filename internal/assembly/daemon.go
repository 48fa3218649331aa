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
	"campaign-credsync/sources/vault"
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

// Run is the daemon, until ctx ends. On SIGHUP a new assembly replaces the one that runs, and takes over in memory what it knows; the
// state directory stays locked all the time.
func Run(ctx context.Context, o Options) error {
	for _, warning := range o.Config.Warnings {
		o.Logger.Warn("configuration", "reason", warning)
	}
	a, err := prepare(ctx, o.Config, o.Logger, time.Second)
	if err != nil {
		return err
	}
	defer a.store.Close()
	server, err := control.Listen(o.Config.ControlSocket, o.Logger)
	if err != nil {
		a.unlockFiles(nil)
		return err
	}
	defer server.Close()
	o.Logger.Info("started", "version", o.Version, "instances", len(a.instances))
	g := &generation{process: &process{Options: o, control: server, service: systemd.New()}, assembly: a}
	for {
		next, err := g.run(ctx)
		if next == nil {
			g.unlockFiles(nil)
			o.Logger.Info("stopped")
			return err
		}
		g.unlockFiles(next.assembly)
		g = next
		o.Level.UnmarshalText([]byte(g.config.Log.Level)) // config has refused every other name
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

// process is what stays over a reload.
type process struct {
	Options
	control *control.Server
	service *systemd.Service
}

// generation is what runs between two reloads.
type generation struct {
	*process
	*assembly
	after   *sync.Daemon // which it replaces; nil for the first
	retires *vault.Vault // of the one before, if this one has another
}

// run runs a generation until ctx ends, or SIGHUP has brought a configuration that is good: then it returns the next one.
func (g *generation) run(ctx context.Context) (*generation, error) {
	settings := g.settings
	settings.Before, g.after = g.after, nil
	settings.OnStatus = func(s sync.Status) { g.service.Show(control.Summary(documentsOf(s))) }
	daemon := sync.New(settings)
	g.control.Serve(answers{daemon, g.assembly})

	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); daemon.Run(running) }()
	var others stdsync.WaitGroup
	others.Go(func() { g.watchSecrets(running, daemon) })
	others.Go(func() { filewatch.Watch(running, g.watched(daemon), g.log) })
	others.Go(func() { g.service.Watch(running, daemon.Ready(), daemon.Ping) })
	others.Go(func() { closeVault(g.retires, g.log) }) // files are guarded meanwhile, if Vault hangs

	next := g.untilReload(running, daemon)
	if next == nil {
		g.log.Info("stopping", "reason", context.Cause(ctx))
		g.service.Stopping()
	}
	stop()
	_, err := deadline.Run(context.Background(), watchTimeout, "the watch of files", func() (struct{}, error) {
		others.Wait()
		return struct{}{}, nil
	})
	<-ended // Run has its own limits
	if err != nil {
		g.log.Warn("no longer waiting for the end of the watches", "reason", err)
	}
	var ending stdsync.WaitGroup
	ending.Go(g.settle)
	if next == nil {
		ending.Go(func() { closeVault(g.vault, g.log) })
	} else if next.vault != g.vault {
		next.retires = g.vault
	}
	ending.Wait()
	if next != nil {
		next.after = daemon
	}
	return next, nil
}

// untilReload acts on signals until ctx ends, then it returns nil, or until a reload has succeeded.
func (g *generation) untilReload(ctx context.Context, daemon *sync.Daemon) *generation {
	for {
		select {
		case <-signals.Check:
			g.log.Info("full check requested", "reason", "SIGUSR1")
			g.retry()
			daemon.CheckSoon()
		case <-signals.Reload:
			g.service.Reloading()
			next, err := g.reload(ctx, daemon)
			if next != nil {
				return next
			}
			if ctx.Err() == nil {
				g.log.Error("configuration not reloaded, keeping the old one", "reason", err)
				g.service.ReloadRefused()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// reload makes the next generation from the configuration as it is now, and drains daemon. When it fails, daemon goes on.
func (g *generation) reload(ctx context.Context, daemon *sync.Daemon) (*generation, error) {
	a, err := deadline.Run(ctx, startTimeout, "the reload", g.reassemble)
	if err != nil {
		return nil, err
	}
	if err := a.lockFiles(g.assembly, 0); err != nil {
		return nil, err
	}
	g.log.Debug("configuration read, waiting for running steps to end")
	if err := daemon.Drain(); err != nil {
		a.unlockFiles(g.assembly)
		return nil, err
	}
	a.retry()          // a refused secret-id gets one more try
	a.nlserver.Retry() // a wrapper script may run another build now
	for _, warning := range a.config.Warnings {
		g.log.Warn("configuration", "reason", warning)
	}
	g.log.Info("configuration reloaded", "instances", len(a.instances))
	return &generation{process: g.process, assembly: a}, nil
}

// reassemble reads the configuration again. Some keys can change by a restart only.
func (g *generation) reassemble() (*assembly, error) {
	c, err := g.Load()
	if err != nil {
		return nil, err
	}
	for _, fixed := range []struct{ key, was, is string }{
		{"state_dir", g.config.StateDir, c.StateDir},
		{"control_socket", g.config.ControlSocket, c.ControlSocket},
		{"log.format", g.config.Log.Format, c.Log.Format},
	} {
		if fixed.was != fixed.is {
			return nil, c.At(fixed.key, fmt.Errorf("changes from %s to %s, which takes a restart", fixed.was, fixed.is))
		}
	}
	return assemble(c, g.store, g.log, false, g.assembly)
}

// watched are the instances' files, each with what tells the loop of its changes.
func (a *assembly) watched(daemon *sync.Daemon) []filewatch.File {
	var files []filewatch.File
	for i, path := range a.files {
		files = append(files, filewatch.File{Path: path, Changed: func(lost bool) { daemon.Touched(i, lost) }})
	}
	return files
}
