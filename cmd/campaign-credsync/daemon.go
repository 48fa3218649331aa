package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"campaign-credsync/internal/signals"
	"campaign-credsync/sinks"
	"campaign-credsync/sources"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// runDaemon runs until ctx ends. SIGHUP puts a new assembly in place of the one that runs; what it has done and knows is handed
// over in memory, and the state directory stays locked all the time.
func runDaemon(ctx context.Context, in *invocation, c *config) error {
	// The daemon waits much and computes little. On one processor an event goes from goroutine to goroutine without
	// waking another thread each time: a revert after an edit in place takes 0.2 ms less (measured on two processors).
	if _, chosen := in.env("GOMAXPROCS"); !chosen {
		runtime.GOMAXPROCS(1)
	}
	// Garbage of a large file is collected sooner rather than doubling what the process has: 45 MiB with one of 16 MiB, not 77.
	if _, chosen := in.env("GOMEMLIMIT"); !chosen {
		debug.SetMemoryLimit(40 << 20)
	}
	level := new(slog.LevelVar)
	log, outlet := newDaemonLogger(c.Log, in.stderr, in.env, level)
	defer outlet.close()
	for _, warning := range c.warnings {
		log.Warn("configuration", "reason", warning)
	}
	p, err := prepare(ctx, c, log, "", time.Second)
	if err != nil {
		return err
	}
	defer p.close()
	control, err := listenControl(c.ControlSocket, log)
	if err != nil {
		return err
	}
	defer control.close()

	// Whoever reads the log may go away. Notify, and not Ignore, which nlserver would inherit: the write fails, that is all.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	log.Info("started", "version", buildVersion(), "instances", len(p.assembly.instances))
	service := newService(in.env)
	for now := (&generation{config: c, assembly: p.assembly}); ; {
		next, err := now.runUntilReload(ctx, in, p, control, service, log)
		if err != nil || next == nil {
			log.Info("stopped")
			return err
		}
		now = next
		p.claims.keep(now.assembly)
		setLevel(level, now.config.Log)
	}
}

// parts are what a process keeps from its start to its end, and the assembly that it starts with.
type parts struct {
	store    *state.Store
	claims   *claims
	assembly *assembly
}

// prepare takes the state directory and the instances' files for this process: all of them, or none.
func prepare(ctx context.Context, c *config, log *slog.Logger, only string, patience time.Duration) (*parts, error) {
	return within(ctx, fileLimit, "the start", func() (_ *parts, err error) {
		if err := checkUser(c); err != nil {
			return nil, err
		}
		p := &parts{claims: newClaims(log)}
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
	config   *config
	assembly *assembly
	after    *sync.Daemon   // whose place it takes; nil for the first
	retires  *sources.Vault // of the one before, where this one has another
}

// runUntilReload runs a generation until ctx ends (nil) or SIGHUP brought a configuration that is good: then it returns the next one.
func (g *generation) runUntilReload(ctx context.Context, in *invocation, p *parts, control *control, service *service,
	log *slog.Logger) (*generation, error) {

	a := g.assembly
	settings := a.settings
	settings.Before, g.after = g.after, nil
	settings.OnStatus = service.show
	daemon, err := sync.New(settings)
	if err != nil {
		return nil, err
	}
	control.serve(daemon, a)

	running, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan struct{})
	go func() { defer close(ran); daemon.Run(running) }()
	var group errgroup.Group // none of them fails; all are awaited
	for _, part := range []func(){
		func() { a.watchSources(running, daemon) },
		func() { a.subscribe(running, g.config.Watch, daemon) },
		func() { sinks.Watch(running, a.hints(daemon), log) },
		func() { service.watch(running, daemon) },
		func() { g.retire(log) }, // beside the rest: files are guarded while a Vault that hangs is waited for
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
			service.reloading()
			next, err = g.reload(running, in, p, daemon, log)
			if err != nil && running.Err() == nil {
				log.Error("configuration not reloaded, keeping the old one", "reason", err)
				p.claims.keep(a)
				service.reloadRefused()
			}
		case <-running.Done():
		}
	}
	if next == nil {
		service.stopping()
	}
	stop()
	_, err = within(context.Background(), watchGrace, "the watch of files", func() (struct{}, error) { return struct{}{}, group.Wait() })
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
func (g *generation) retire(log *slog.Logger) {
	if g.retires != nil {
		closeVault(g.retires, log)
	}
}

// reload reads the configuration again and makes room for what it describes. When it fails, all is as it was.
func (g *generation) reload(ctx context.Context, in *invocation, p *parts, daemon *sync.Daemon, log *slog.Logger) (*generation, error) {
	next, err := within(ctx, fileLimit, "the reload", func() (*generation, error) { return g.next(in, p, log) })
	if err == nil {
		log.Debug("configuration read, waiting for the end of what runs")
		err = daemon.Drain(ctx) // until nothing runs, files are guarded and the watchdog is fed
	}
	if err != nil {
		return nil, err
	}
	next.assembly.retry()             // a refused secret-id gets one more try
	next.assembly.nlserver.it.Retry() // what is behind a wrapper script may be another build
	for _, warning := range next.config.warnings {
		log.Warn("configuration", "reason", warning)
	}
	log.Info("configuration reloaded", "instances", len(next.assembly.instances))
	return next, nil
}

// next reads the configuration. What belongs to the process as a whole cannot change.
func (g *generation) next(in *invocation, p *parts, log *slog.Logger) (*generation, error) {
	c, err := in.load()
	if err != nil {
		return nil, err
	}
	for _, fixed := range []struct{ key, was, is string }{
		{"state_dir", g.config.StateDir, c.StateDir},
		{"control_socket", g.config.ControlSocket, c.ControlSocket},
		{"log.format", g.config.Log.Format, c.Log.Format},
	} {
		if fixed.was != fixed.is {
			return nil, fmt.Errorf("%s: %s changes from %s to %s, which takes a restart", in.configFile, fixed.key, fixed.was, fixed.is)
		}
	}
	a, err := assemble(c, p.store, p.claims, log, "", g.assembly)
	if err != nil {
		return nil, err
	}
	if err := p.claims.take(a, 0); err != nil {
		return nil, err
	}
	return &generation{config: c, assembly: a}, nil
}

// hints tells the loop of changes of each instance's file.
func (a *assembly) hints(daemon *sync.Daemon) map[string]func(missed bool) {
	hints := map[string]func(bool){}
	for i, file := range a.files {
		hints[file] = func(missed bool) {
			if missed {
				daemon.Missed(i)
			} else {
				daemon.Touched(i)
			}
		}
	}
	return hints
}
