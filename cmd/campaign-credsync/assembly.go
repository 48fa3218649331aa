package main

import (
	"context"
	"log/slog"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks"
	"campaign-credsync/sources"
	"campaign-credsync/sync"
)

// assembly is the daemon as a configuration describes it, wired and not started.
type assembly struct {
	vault     *sources.Vault
	nlserver  made[sinks.NLServerConfig, *sinks.NLServer]
	secrets   map[secret]*sources.KV // instances with the same secret share its polls
	sinks     map[sinks.InstanceConfig]*sinks.Instance
	instances []sync.Instance
	files     []string // configuration file of each instance
	settings  sync.Config
	log       *slog.Logger
}

// made is something and what it was made from.
type made[From comparable, T any] struct {
	from From
	it   T
}

// secret is what makes two instances' secrets the same.
type secret struct {
	mount, path string
	fields      fieldConfig
}

// assemble wires a configuration that was checked. It reads certificates and talks to nobody. claims may be nil where
// nothing is to be written. only, where not empty, is the one instance to take.
//
// before, where not nil, is the assembly whose place this one is to take. What a change of the configuration does not touch is
// the same in both: Vault with its token and connection, secrets, files. So it may be started only when before has ended.
func assemble(c *config, store *sync.Store, claims *claims, log *slog.Logger, only string, before *assembly) (*assembly, error) {
	timing, err := c.Schedule.parse()
	if err != nil {
		return nil, err
	}
	if before == nil {
		before = &assembly{}
	}
	a := &assembly{log: log, secrets: map[secret]*sources.KV{}, sinks: map[sinks.InstanceConfig]*sinks.Instance{}}
	same, err := a.useVault(c, store, claims, before)
	if err != nil {
		return nil, err
	}
	a.useNLServer(c, before)
	for _, i := range c.Instances {
		if only != "" && i.Name != only {
			continue
		}
		key := secret{i.Mount, i.Path, i.Fields}
		switch {
		case a.secrets[key] != nil:
		case same && before.secrets[key] != nil:
			a.secrets[key] = before.secrets[key]
		default:
			a.secrets[key] = a.vault.KV(i.Mount, i.Path, i.Fields.names())
		}
		a.instances = append(a.instances, sync.Instance{
			Name: i.Name, Source: a.secrets[key], AllowRollback: i.AllowRollback,
			Sink: claimed{a.sink(c, i, before), claims, i.ConfigFile},
		})
		a.files = append(a.files, i.ConfigFile)
	}
	a.settings = sync.Config{
		Instances: a.instances, Store: store, Logger: log,
		Activator: activator{a.nlserver.it, c.Campaign.Activate},
		Poll:      c.Watch.Poll,
		Revert:    sync.RevertMode(c.Drift.Revert), MaxReverts: c.Drift.MaxReverts,
		Verify: timing.Verify, Reapply: timing.Reapply, ActivateAt: timing.Activate,
	}
	return a, nil
}

// useVault takes the Vault of before if a new one would be the same, and says whether it did.
func (a *assembly) useVault(c *config, store *sync.Store, claims *claims, before *assembly) (same bool, err error) {
	from := sources.VaultConfig{
		Address: c.Vault.Address, Namespace: c.Vault.Namespace,
		CACert: c.Vault.CACert, ClientCert: c.Vault.ClientCert, ClientKey: c.Vault.ClientKey,
		TLSServerName: c.Vault.TLSServerName,
		Auth: sources.Auth{
			Method: c.Vault.Auth.Method, Mount: c.Vault.Auth.Mount, Namespace: c.Vault.Auth.Namespace,
			RoleID: c.Vault.Auth.RoleID.Reveal(), RoleIDFile: c.Vault.Auth.RoleIDFile,
			SecretIDFile: c.Vault.Auth.SecretIDFile, TokenFile: c.Vault.Auth.TokenFile,
		},
		StateDir: c.StateDir, DigestKey: store.Key(), Logger: a.log,
		MakeStateDir: func() ([]byte, error) { return makeStateDir(c) }, OnlyReads: claims == nil,
	}
	if before.vault != nil && before.vault.Serves(from) {
		a.vault = before.vault
		return true, nil
	}
	a.vault, err = sources.NewVault(from)
	return false, err
}

func (a *assembly) useNLServer(c *config, before *assembly) {
	from := sinks.NLServerConfig{
		Home: c.Campaign.Home, Executable: c.Campaign.Nlserver, EnvScript: c.Campaign.EnvScript,
		Command: c.Campaign.Command, Timeout: c.Campaign.Timeout, Logger: a.log,
	}
	a.nlserver = before.nlserver
	if a.nlserver.it == nil || a.nlserver.from != from {
		a.nlserver = made[sinks.NLServerConfig, *sinks.NLServer]{from, sinks.NewNLServer(from)}
	}
}

func (a *assembly) sink(c *config, i instanceConfig, before *assembly) *sinks.Instance {
	from := sinks.InstanceConfig{
		Name: i.Name, File: i.ConfigFile, StateDir: c.StateDir, NLServer: a.nlserver.it, Logger: a.log,
	}
	a.sinks[from] = before.sinks[from]
	if a.sinks[from] == nil {
		a.sinks[from] = sinks.NewInstance(from)
	}
	return a.sinks[from]
}

func (f fieldConfig) names() sources.Fields {
	return sources.Fields{
		credential.FieldOrgID:              f.OrgID,
		credential.FieldClientID:           f.ClientID,
		credential.FieldTechnicalAccountID: f.TechnicalAccountID,
		credential.FieldClientSecret:       f.ClientSecret,
		credential.FieldPrivateKey:         f.PrivateKey,
	}
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

// closeTime bounds the revocation of the token at the end.
const closeTime = time.Second

func (a *assembly) close() { closeVault(a.vault, a.log) }

// closeVault revokes the token, for which it has a second: Vault may be what is out of reach.
func closeVault(vault *sources.Vault, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := vault.Close(ctx); err != nil {
		log.Warn("token not revoked, it ends by itself", "reason", err)
	}
}
