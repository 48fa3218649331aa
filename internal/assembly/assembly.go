// Package assembly connects sync, sources and sinks as the configuration says, and runs them: as the daemon, whose assembly a reload
// replaces, for one pass, or only to look.
package assembly

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/filelock"
	"campaign-credsync/internal/ims"
	"campaign-credsync/sinks"
	"campaign-credsync/sinks/nlserver"
	"campaign-credsync/sources/vault"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// meter counts what sources, sinks and sync do. A nil one is nil for each of them, which a nil *metrics.Metrics would not be.
type meter interface {
	sync.Meter
	nlserver.Meter
	connection.Meter
}

// assembly is everything that a configuration describes, connected. The zero assembly has nothing.
type assembly struct {
	config *config.Config
	store  *state.Store
	log    *slog.Logger

	vault    *vault.Vault // nil where no instance needs it
	nlserver *nlserver.Binary
	sources  map[secret]sync.Source
	sinks    map[sinks.Config]*sinks.Instance
	owners   map[filelock.ID]int            // instance whose file it is
	locks    map[filelock.ID]*filelock.Lock // those that are held
	settings sync.Config
	meter    meter        // nil: nobody counts
	daemon   *sync.Daemon // runs the assembly; before that, the one of the assembly that this one replaces, or nil
}

// assemble makes the assembly of a configuration. It reads certificates, sends nothing and locks no file. With onlyLooks, logins write
// nothing unless they fail.
//
// before is the assembly that this one replaces. What the change of the configuration does not concern is the same in both: Vault with
// its token and connection, secrets, files. So the new one may be started only when before has ended.
func assemble(c *config.Config, store *state.Store, log *slog.Logger, onlyLooks bool, before *assembly) (*assembly, error) {
	a := &assembly{
		config: c, store: store, log: log, meter: before.meter, daemon: before.daemon,
		sources: map[secret]sync.Source{}, sinks: map[sinks.Config]*sinks.Instance{},
		owners: map[filelock.ID]int{}, locks: map[filelock.ID]*filelock.Lock{},
	}
	if err := a.useVault(onlyLooks, before); err != nil {
		return nil, err
	}
	a.useNLServer(before)
	a.settings = sync.Config{
		Store: store, Logger: log,
		Activator: a.nlserver,
		Poll:      c.Watch.Poll, CommandRuns: nlserver.CommandRuns,
		Revert: sync.RevertMode(c.Drift.Revert), MaxReverts: c.Drift.MaxReverts,
		HoldFirst: c.Campaign.FirstApply == config.FirstApplyHold, Meter: a.meter,
		Verify: c.Schedule.VerifyAt, Reapply: c.Schedule.ReapplyAt, ActivateAt: c.Schedule.ActivateAt,
	}
	if c.IMS.Asks() {
		a.settings.Prober, a.settings.Recheck = ims.New(c.IMS.Endpoint, c.IMS.Scopes), c.IMS.Recheck
	}
	if c.IMS.Probe == config.ProbeBeforeApply {
		a.settings.Patience = c.IMS.Patience
	}
	for _, i := range c.Instances {
		a.settings.Instances = append(a.settings.Instances, sync.Instance{
			Name: i.Name, Source: a.source(i, before), Fields: i.Fields.Names(), AllowRollback: i.AllowRollback,
			Sink: a.sink(i, before), File: filepath.Clean(i.ConfigFile), Steps: nlserver.Steps(c.Campaign.Activate.Reload, c.Campaign.Activate.Restart, i.Name),
		})
	}
	return a, a.identifyFiles()
}

// useNLServer takes the nlserver of before if a new one would be the same.
func (a *assembly) useNLServer(before *assembly) {
	switch {
	case before.nlserver == nil:
		a.nlserver = nlserver.New(a.nlserverConfig())
	case a.nlserverConfig() == before.nlserverConfig():
		a.nlserver = before.nlserver
	default:
		a.nlserver = nlserver.New(a.nlserverConfig())
		a.nlserver.TakeOver(before.nlserver)
	}
}

func (a *assembly) nlserverConfig() nlserver.Config {
	c := a.config.Campaign
	return nlserver.Config{
		Home: c.Home, Executable: c.Nlserver, EnvScript: c.EnvScript,
		Command: c.Command, Timeout: c.Timeout, StateDir: a.config.StateDir, Logger: a.log, Meter: a.meter,
		Via: c.Activate.Via, Socket: c.Activate.Socket, Prove: c.Activate.Prove, MinInterval: c.Activate.MinInterval,
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

const settleTime = time.Second

// settle waits for what the sinks do in the background, at most settleTime, as a disk may hang.
func (a *assembly) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	for _, sink := range a.sinks {
		sink.Wait(ctx)
	}
}
