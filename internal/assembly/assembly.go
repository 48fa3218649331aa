// Package assembly connects sync, sources and sinks as the configuration says, and runs them: as the daemon, whose assembly a reload
// replaces, for one pass, or only to look.
package assembly

import (
	"context"
	"log/slog"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/filelock"
	"campaign-credsync/sinks"
	"campaign-credsync/sinks/nlserver"
	"campaign-credsync/sources/vault"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// assembly is everything that a configuration describes, connected and not started.
type assembly struct {
	config    *config.Config
	store     *state.Store
	log       *slog.Logger
	onlyLooks bool // writes nothing and locks nothing

	vault    *vault.Vault // nil where no instance needs it
	nlserver *nlserver.Binary
	madeFrom nlserver.Config                 // nlserver
	sources  map[config.Instance]sync.Source // of each secretOf
	sinks    map[sinks.Config]*sinks.Instance
	owners   map[filelock.ID]int            // instance whose file it is
	locks    map[filelock.ID]*filelock.Lock // those that are held
	settings sync.Config
}

// assemble makes the assembly of a configuration. It reads certificates, sends nothing and locks no file.
//
// before, where not nil, is the assembly that this one replaces. What the change of the configuration does not concern is the same in
// both: Vault with its token and connection, secrets, files. So the new one may be started only when before has ended.
func assemble(c *config.Config, store *state.Store, log *slog.Logger, onlyLooks bool, before *assembly) (*assembly, error) {
	if before == nil {
		before = &assembly{}
	}
	a := &assembly{
		config: c, store: store, log: log, onlyLooks: onlyLooks,
		sources: map[config.Instance]sync.Source{}, sinks: map[sinks.Config]*sinks.Instance{},
		owners: map[filelock.ID]int{}, locks: map[filelock.ID]*filelock.Lock{},
	}
	a.useNLServer(before)
	a.settings = sync.Config{
		Store: store, Logger: log,
		Activator: a.nlserver,
		Poll:      c.Watch.Poll, CommandRuns: nlserver.CommandRuns,
		Revert: sync.RevertMode(c.Drift.Revert), MaxReverts: c.Drift.MaxReverts,
		Verify: c.Schedule.VerifyAt, Reapply: c.Schedule.ReapplyAt, ActivateAt: c.Schedule.ActivateAt,
	}
	for _, i := range c.Instances {
		source, err := a.source(secretOf(i), before)
		if err != nil {
			return nil, err
		}
		a.settings.Instances = append(a.settings.Instances, sync.Instance{
			Name: i.Name, Source: source, Fields: i.Fields.Names(), AllowRollback: i.AllowRollback,
			Sink: a.sink(i, before), Steps: nlserver.Steps(c.Campaign.Activate.Reload, c.Campaign.Activate.Restart, i.Name),
		})
	}
	return a, a.identifyFiles()
}

// useNLServer takes the nlserver of before if a new one would be the same.
func (a *assembly) useNLServer(before *assembly) {
	c := a.config
	a.madeFrom = nlserver.Config{
		Home: c.Campaign.Home, Executable: c.Campaign.Nlserver, EnvScript: c.Campaign.EnvScript,
		Command: c.Campaign.Command, Timeout: c.Campaign.Timeout, StateDir: c.StateDir, Logger: a.log,
	}
	a.nlserver = before.nlserver
	if a.nlserver == nil || a.madeFrom != before.madeFrom {
		a.nlserver = nlserver.New(a.madeFrom)
		if before.nlserver != nil {
			a.nlserver.TakeOver(before.nlserver)
		}
	}
}

// sink takes the sink of before if a new one would be the same.
func (a *assembly) sink(i config.Instance, before *assembly) *sinks.Instance {
	from := sinks.Config{
		Name: i.Name, File: i.ConfigFile, StateDir: a.config.StateDir, NLServer: a.nlserver, Logger: a.log,
	}
	a.sinks[from] = before.sinks[from]
	if a.sinks[from] == nil {
		a.sinks[from] = sinks.New(from)
	}
	return a.sinks[from]
}

// settle waits for what the sinks do in the background, at most settleTime, as a disk may hang.
func (a *assembly) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	for _, sink := range a.sinks {
		sink.Wait(ctx)
	}
}

const settleTime = time.Second
