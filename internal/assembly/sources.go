package assembly

import (
	"context"
	"errors"
	"log/slog"
	stdsync "sync"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/sources/jsonfile"
	"campaign-credsync/sources/vault"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
	"campaign-credsync/sources/vault/push"
	"campaign-credsync/sync"
)

// secret says where a secret is. Instances with the same secret share its source, also when they take other fields of it.
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

// source returns the source of a secret, and connects to Vault for the first one that is there.
func (a *assembly) source(from secret, before *assembly) (sync.Source, error) {
	if a.secrets[from] != nil {
		return a.secrets[from], nil
	}
	if from.file == "" && a.vault == nil {
		if err := a.useVault(before); err != nil {
			return nil, err
		}
	}
	switch {
	case before.secrets[from] != nil && (from.file != "" || a.vault == before.vault):
		a.secrets[from] = before.secrets[from]
	case from.file != "":
		a.secrets[from] = jsonfile.New(from.file, a.store.Key(), a.log)
	case from.kvVersion == 1:
		a.secrets[from] = a.vault.KV1(from.mount, from.path)
	default:
		a.secrets[from] = a.vault.KV(from.mount, from.path)
	}
	return a.secrets[from], nil
}

// useVault takes the Vault of before if a new one would be the same.
func (a *assembly) useVault(before *assembly) (err error) {
	c := a.config
	from := vault.Config{
		Config: connection.Config{
			Address: c.Vault.Address, CACert: c.Vault.CACert, ClientCert: c.Vault.ClientCert, ClientKey: c.Vault.ClientKey,
			TLSServerName: c.Vault.TLSServerName, Logger: a.log,
		},
		Namespace: c.Vault.Namespace,
		Auth:      c.Vault.Auth,
		State: login.State{
			StateDir: c.StateDir, DigestKey: a.store.Key(),
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

// watchSecrets brings polls forward until ctx ends: of all sources when there is another way to log in to Vault, of a file when its
// content is another, and of a secret when Vault tells of a new version.
func (a *assembly) watchSecrets(ctx context.Context, daemon *sync.Daemon) {
	files, kvs := map[*jsonfile.File]func(){}, map[*vault.KV]func(){}
	for i, in := range a.instances {
		changed := func() { daemon.Announced(i) } // any of those that share the source
		switch source := in.Source.(type) {
		case *jsonfile.File:
			files[source] = changed
		case *vault.KV:
			kvs[source] = changed
		}
	}
	var group stdsync.WaitGroup
	group.Go(func() { jsonfile.Watch(ctx, files, a.log) })
	if a.vault != nil {
		group.Go(func() { a.vault.Run(ctx, daemon.CheckSoon) })
	}
	if a.vault != nil && a.config.Watch.Events != config.EventsOff {
		group.Go(func() { push.Subscribe(ctx, a.vault.PushConfig(a.config.Watch.Poll, kvs)) })
	}
	group.Wait()
}

// retry has Vault forget what was refused, and every wait, as an operator asks for it.
func (a *assembly) retry() {
	if a.vault != nil {
		a.vault.RetryRefused()
	}
}

// closeTime bounds the revocation of the token at the end.
const closeTime = time.Second

// closeVault revokes the token. It waits only a little, as Vault may be out of reach. v may be nil.
func closeVault(v *vault.Vault, log *slog.Logger) {
	if v == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_, err := deadline.Run(ctx, closeTime+deadline.Grace, "revoking the token", func() (struct{}, error) { return struct{}{}, v.Close(ctx) })
	if err != nil {
		log.Warn("token not revoked, it ends by itself", "reason", err)
	}
}
