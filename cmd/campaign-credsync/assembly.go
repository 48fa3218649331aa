package main

import (
	"context"
	"log/slog"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks"
	"campaign-credsync/sources"
	"campaign-credsync/sync"
)

// assembly is the daemon as a configuration describes it, wired and not started.
type assembly struct {
	vault     *sources.Vault        // nil where no instance needs it
	byFile    map[*sources.File]int // an instance that has the file as its source
	instances []sync.Instance
	files     []string // configuration file of each instance
	settings  sync.Config
	log       *slog.Logger
}

// assemble wires a configuration that was checked. It reads certificates and talks to nobody. claims may be nil where
// nothing is to be written. only, where not empty, is the one instance to take.
func assemble(c *config, store *sync.Store, claims *claims, log *slog.Logger, only string) (*assembly, error) {
	timing, err := c.Schedule.parse()
	if err != nil {
		return nil, err
	}
	nlserver := sinks.NewNLServer(sinks.NLServerConfig{
		Home: c.Campaign.Home, Executable: c.Campaign.Nlserver, EnvScript: c.Campaign.EnvScript,
		Command: c.Campaign.Command, Timeout: c.Campaign.Timeout, Logger: log,
	})
	a := &assembly{log: log, byFile: map[*sources.File]int{}}
	shared := map[secret]sync.Source{} // instances with the same secret share its polls
	for _, i := range c.Instances {
		if only != "" && i.Name != only {
			continue
		}
		from := secretOf(i)
		if shared[from] == nil {
			if shared[from], err = a.source(c, from, store, claims); err != nil {
				return nil, err
			}
		}
		a.instances = append(a.instances, sync.Instance{
			Name: i.Name, Source: shared[from], Fields: i.Fields.names(), AllowRollback: i.AllowRollback,
			Sink: claimed{sinks.NewInstance(sinks.InstanceConfig{
				Name: i.Name, File: i.ConfigFile, StateDir: c.StateDir, NLServer: nlserver, Logger: log,
			}), claims, i.ConfigFile},
		})
		a.files = append(a.files, i.ConfigFile)
	}
	a.settings = sync.Config{
		Instances: a.instances, Store: store, Logger: log,
		Activator: activator{nlserver, c.Campaign.Activate},
		Poll:      c.Watch.Poll,
		Revert:    sync.RevertMode(c.Drift.Revert), MaxReverts: c.Drift.MaxReverts,
		Verify: timing.Verify, Reapply: timing.Reapply, ActivateAt: timing.Activate,
	}
	return a, nil
}

func (f fieldConfig) names() credential.Fields {
	names := credential.Fields{}
	for _, field := range f.list() {
		names[field.ours] = field.theirs
	}
	return names
}

// activator adds what the configuration wants to what nlserver can.
type activator struct {
	nlserver *sinks.NLServer
	want     activateConfig
}

func (a activator) Steps(instance string) []string {
	return sinks.ActivationSteps(a.want.Reload, a.want.Restart, instance)
}

func (a activator) Activate(ctx context.Context, step string) error {
	return a.nlserver.Activate(ctx, step)
}
