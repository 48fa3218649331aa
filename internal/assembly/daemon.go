package assembly

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/internal/filewatch"
	"campaign-credsync/internal/signals"
	"campaign-credsync/internal/systemd"
	"campaign-credsync/sources"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// Options is what the daemon gets from its command line.
type Options struct {
	Config   *config.Config
	Load     func() (*config.Config, error) // reads the configuration again, for a reload
	Logger   *slog.Logger
	SetLevel func(config.Log) // of Logger
	Version  string
}

// Run is the daemon, until ctx ends. SIGHUP puts a new assembly in place of the one that runs; what it has done and knows is handed
// over in memory, and the state directory stays locked all the time.
func Run(ctx context.Context, o Options) error {
	log := o.Logger
	for _, warning := range o.Config.Warnings {
		log.Warn("configuration", "reason", warning)
	}
	p, err := prepare(ctx, o.Config, log, "", time.Second)
	if err != nil {
		return err
	}
	defer p.close()
	p.options = o
	if p.control, err = control.Listen(o.Config.ControlSocket, log); err != nil {
		return err
	}
	defer p.control.Close()
	p.service = systemd.New()
	log.Info("started", "version", o.Version, "instances", len(p.assembly.instances))
	for now := (&generation{parts: p, config: o.Config, assembly: p.assembly}); ; {
		next, err := now.runUntilReload(ctx)
		if err != nil || next == nil {
			log.Info("stopped")
			return err
		}
		now = next
		p.claims.keep(now.assembly)
		o.SetLevel(now.config.Log)
	}
}

const (
	startTimeout = 10 * time.Second // for what reads and writes small files
	// watchTimeout is how long what brings hints may take to end. A reload goes on without it, too.
	watchTimeout = 2 * time.Second
)

// parts are what a process keeps from its start to its end, and the assembly that it starts with.
type parts struct {
	log      *slog.Logger
	store    *state.Store
	claims   *claims
	assembly *assembly

	// Of the daemon only:
	options Options
	control *control.Server
	service *systemd.Service
}

// prepare takes the state directory and the instances' files for this process: all of them, or none.
func prepare(ctx context.Context, c *config.Config, log *slog.Logger, only string, patience time.Duration) (*parts, error) {
	return deadline.Run(ctx, startTimeout, "the start", func() (_ *parts, err error) {
		if err := checkUser(c); err != nil {
			return nil, err
		}
		p := &parts{log: log, claims: newClaims(log)}
		if p.store, err = state.Open(c.StateDir, patience); err != nil {
			return nil, err
		}
		if p.assembly, err = assemble(c, p.store, p.claims, log, only, nil); err == nil {
			err = p.claims.take(p.assembly, time.Second)
		}
		if err != nil {
			p.close()
			return nil, err
		}
		return p, nil
	})
}

func (p *parts) close() {
	p.claims.close()
	p.store.Close()
}

// generation is what runs between two reloads.
type generation struct {
	*parts
	config   *config.Config
	assembly *assembly
	after    *sync.Daemon   // whose place it takes; nil for the first
	retires  *sources.Vault // of the one before, where this one has another
}

// runUntilReload runs a generation until ctx ends (nil) or SIGHUP brought a configuration that is good: then it returns the next one.
func (g *generation) runUntilReload(ctx context.Context) (*generation, error) {
	a, log := g.assembly, g.log
	settings := a.settings
	settings.Before, g.after = g.after, nil
	settings.OnStatus = func(s sync.Status) { g.service.Show(control.Summary(documentsOf(s))) }
	daemon, err := sync.New(settings)
	if err != nil {
		return nil, err
	}
	g.control.Serve(answers{daemon, a})

	running, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan struct{})
	go func() { defer close(ran); daemon.Run(running) }()
	var group errgroup.Group // none of them fails; all are awaited
	for _, part := range []func(){
		func() { a.watchSources(running, daemon) },
		func() { a.subscribe(running, g.config.Watch, daemon) },
		func() { filewatch.Watch(running, a.watched(daemon), log) },
		func() { g.service.Watch(running, daemon.Ready(), daemon.Ping) },
		func() { g.retire() }, // beside the rest: files are guarded while a Vault that hangs is waited for
	} {
		group.Go(func() error { part(); return nil })
	}

	var next *generation
	for next == nil && running.Err() == nil {
		select {
		case <-signals.Check:
			log.Info("full check asked for", "reason", "SIGUSR1")
			a.retry()
			daemon.CheckSoon()
		case <-signals.Reload:
			g.service.Reloading()
			next, err = g.reload(running, daemon)
			if err != nil && running.Err() == nil {
				log.Error("configuration not reloaded, keeping the old one", "reason", err)
				g.claims.keep(a)
				g.service.ReloadRefused()
			}
		case <-running.Done():
		}
	}
	if next == nil {
		g.service.Stopping()
	}
	stop()
	_, err = deadline.Run(context.Background(), watchTimeout, "the watch of files", func() (struct{}, error) { return struct{}{}, group.Wait() })
	<-ran // it leaves behind what does not end
	if err != nil {
		log.Warn("left behind", "reason", err)
	}
	settled := make(chan struct{})
	go func() { defer close(settled); a.settle() }()
	if next == nil {
		a.close()
	}
	<-settled
	if next == nil {
		return nil, nil
	}
	next.after = daemon
	if next.assembly.vault != a.vault {
		next.retires = a.vault
	}
	return next, nil
}

// retire ends what the generation before this one used and this one does not.
func (g *generation) retire() {
	if g.retires != nil {
		closeVault(g.retires, g.log)
	}
}

// reload reads the configuration again and makes room for what it describes. When it fails, all is as it was.
func (g *generation) reload(ctx context.Context, daemon *sync.Daemon) (*generation, error) {
	next, err := deadline.Run(ctx, startTimeout, "the reload", func() (*generation, error) { return g.next() })
	if err == nil {
		g.log.Debug("configuration read, waiting for the end of what runs")
		err = daemon.Drain(ctx) // until nothing runs, files are guarded and the watchdog is fed
	}
	if err != nil {
		return nil, err
	}
	next.assembly.retry()             // a refused secret-id gets one more try
	next.assembly.nlserver.it.Retry() // what is behind a wrapper script may be another build
	for _, warning := range next.config.Warnings {
		g.log.Warn("configuration", "reason", warning)
	}
	g.log.Info("configuration reloaded", "instances", len(next.assembly.instances))
	return next, nil
}

// next reads the configuration. What belongs to the process as a whole cannot change.
func (g *generation) next() (*generation, error) {
	c, err := g.options.Load()
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
	a, err := assemble(c, g.store, g.claims, g.log, "", g.assembly)
	if err != nil {
		return nil, err
	}
	if err := g.claims.take(a, 0); err != nil {
		return nil, err
	}
	return &generation{parts: g.parts, config: c, assembly: a}, nil
}

// watched are the instances' files, each with what tells the loop of its changes.
func (a *assembly) watched(daemon *sync.Daemon) []filewatch.File {
	var files []filewatch.File
	for i, path := range a.files {
		files = append(files, filewatch.File{Path: path, Changed: func(lost bool) {
			if lost {
				daemon.Missed(i)
			} else {
				daemon.Touched(i)
			}
		}})
	}
	return files
}
