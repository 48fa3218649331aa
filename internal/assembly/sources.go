package assembly

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/sources/jsonfile"
	"campaign-credsync/sources/vault"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
	"campaign-credsync/sources/vault/push"
	"campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// secret is what makes two instances' secrets the same. What their fields are called is beside the point.
type secret struct {
	mount, path string
	kvVersion   int
	file        string // of source file, and then the rest is empty
}

func secretOf(i config.Instance) secret {
	if i.Source == config.SourceFile {
		return secret{file: i.File}
	}
	return secret{mount: i.Mount, path: i.Path, kvVersion: i.KVVersion}
}

// source returns the source of a secret. The first that is in Vault brings the connection with it.
func (a *assembly) source(c *config.Config, from secret, store *state.Store, before *assembly) (sync.Source, error) {
	if a.secrets[from] != nil {
		return a.secrets[from], nil
	}
	if from.file == "" && a.vault == nil {
		if err := a.useVault(c, store, before); err != nil {
			return nil, err
		}
	}
	switch {
	case before.secrets[from] != nil && (from.file != "" || a.vault == before.vault):
		a.secrets[from] = before.secrets[from]
	case from.file != "":
		a.secrets[from] = jsonfile.New(from.file, store.Key(), a.log)
	case from.kvVersion == 1:
		a.secrets[from] = a.vault.KV1(from.mount, from.path)
	default:
		a.secrets[from] = a.vault.KV(from.mount, from.path)
	}
	return a.secrets[from], nil
}

// useVault takes the Vault of before if a new one would be the same.
func (a *assembly) useVault(c *config.Config, store *state.Store, before *assembly) (err error) {
	from := vault.Config{
		Config: connection.Config{
			Address: c.Vault.Address, CACert: c.Vault.CACert, ClientCert: c.Vault.ClientCert, ClientKey: c.Vault.ClientKey,
			TLSServerName: c.Vault.TLSServerName, Logger: a.log,
		},
		Namespace: c.Vault.Namespace,
		Auth: login.Auth{
			Method: c.Vault.Auth.Method, Mount: c.Vault.Auth.Mount, Namespace: c.Vault.Auth.Namespace,
			RoleID: c.Vault.Auth.RoleID.Reveal(), RoleIDFile: c.Vault.Auth.RoleIDFile,
			SecretIDFile: c.Vault.Auth.SecretIDFile, SecretIDWrapped: c.Vault.Auth.SecretIDWrapped,
			SecretIDWarn: c.Vault.Auth.SecretIDWarn, TokenFile: c.Vault.Auth.TokenFile,
			Role: c.Vault.Auth.Role, JWTFile: c.Vault.Auth.JWTFile,
		},
		State: login.State{
			StateDir: c.StateDir, DigestKey: store.Key(),
			MakeStateDir: func() ([]byte, error) { return makeStateDir(c) }, OnlyReads: a.onlyLooks,
		},
	}
	if before.vault != nil && before.vault.Serves(from) {
		a.vault = before.vault
		return nil
	}
	if a.vault, err = vault.New(from); err != nil {
		if setting, ok := errors.AsType[*connection.SettingError](err); ok {
			return c.At(setting.Key, setting.Err)
		}
		return err
	}
	return nil
}

// watchSources brings polls forward until ctx ends: of all sources when there is another way to log in to Vault, of a file
// when its content is another.
func (a *assembly) watchSources(ctx context.Context, daemon *sync.Daemon) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		changed := map[*jsonfile.File]func(){}
		for i, in := range a.instances {
			if file, ok := in.Source.(*jsonfile.File); ok {
				changed[file] = func() { daemon.Announced(i) } // any of those that share it
			}
		}
		jsonfile.Watch(ctx, changed, a.log)
	}()
	if a.vault != nil {
		a.vault.Run(ctx, daemon.CheckSoon)
	}
	<-ended
}

// subscribe brings polls forward when Vault tells of a new version, until ctx ends.
func (a *assembly) subscribe(ctx context.Context, watch config.Watch, daemon *sync.Daemon) {
	if a.vault == nil || watch.Events == config.EventsOff {
		return
	}
	changed := map[*vault.KV]func(){}
	for i, in := range a.instances {
		if kv, ok := in.Source.(*vault.KV); ok {
			changed[kv] = func() { daemon.Announced(i) } // any of those that share it
		}
	}
	push.Subscribe(ctx, a.vault.PushConfig(watch.Poll, changed))
}

// retry forgets what was refused, and every wait: the operator asks.
func (a *assembly) retry() {
	if a.vault != nil {
		a.vault.RetryRefused()
	}
}

// soon forgets the waits.
func (a *assembly) soon() {
	if a.vault != nil {
		a.vault.ResetBackoff()
	}
}

// closeTime bounds the revocation of the token at the end.
const closeTime = time.Second

func (a *assembly) close() {
	if a.vault != nil {
		closeVault(a.vault, a.log)
	}
}

// closeVault revokes the token, for which it has a second: Vault may be what is out of reach.
func closeVault(v *vault.Vault, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_, err := deadline.Run(ctx, closeTime+deadline.Grace, "revoking the token", func() (struct{}, error) { return struct{}{}, v.Close(ctx) })
	if err != nil {
		log.Warn("token not revoked, it ends by itself", "reason", err)
	}
}
