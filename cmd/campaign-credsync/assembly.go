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
	vault, err := sources.NewVault(sources.VaultConfig{
		Address: c.Vault.Address, Namespace: c.Vault.Namespace,
		CACert: c.Vault.CACert, ClientCert: c.Vault.ClientCert, ClientKey: c.Vault.ClientKey,
		TLSServerName: c.Vault.TLSServerName,
		Auth: sources.Auth{
			Method: c.Vault.Auth.Method, Mount: c.Vault.Auth.Mount, Namespace: c.Vault.Auth.Namespace,
			RoleID: c.Vault.Auth.RoleID.Reveal(), RoleIDFile: c.Vault.Auth.RoleIDFile,
			SecretIDFile: c.Vault.Auth.SecretIDFile, SecretIDWrapped: c.Vault.Auth.SecretIDWrapped,
			SecretIDWarn: c.Vault.Auth.SecretIDWarn, TokenFile: c.Vault.Auth.TokenFile,
			Role: c.Vault.Auth.Role, JWTFile: c.Vault.Auth.JWTFile,
		},
		StateDir: c.StateDir, DigestKey: store.Key(), Logger: log,
		MakeStateDir: func() ([]byte, error) { return makeStateDir(c) }, OnlyReads: claims == nil,
	})
	if err != nil {
		return nil, err
	}
	nlserver := sinks.NewNLServer(sinks.NLServerConfig{
		Home: c.Campaign.Home, Executable: c.Campaign.Nlserver, EnvScript: c.Campaign.EnvScript,
		Command: c.Campaign.Command, Timeout: c.Campaign.Timeout, Logger: log,
	})
	a := &assembly{vault: vault, log: log}
	type secret struct {
		mount, path string
		fields      fieldConfig
	}
	shared := map[secret]*sources.KV{} // instances with the same secret share its polls
	for _, i := range c.Instances {
		if only != "" && i.Name != only {
			continue
		}
		key := secret{i.Mount, i.Path, i.Fields}
		if shared[key] == nil {
			shared[key] = vault.KV(i.Mount, i.Path, i.Fields.names())
		}
		a.instances = append(a.instances, sync.Instance{
			Name: i.Name, Source: shared[key], AllowRollback: i.AllowRollback,
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

// close revokes the token, for which it has a second: Vault may be what is out of reach.
func (a *assembly) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := a.vault.Close(ctx); err != nil {
		a.log.Warn("token not revoked, it ends by itself", "reason", err)
	}
}
