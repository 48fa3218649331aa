package assembly

import (
	"context"
	"errors"
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

// secretOf says where the secret of an instance is. Instances with the same secret share its source, also when they take other fields
// of it.
func secretOf(i config.Instance) config.Instance {
	return config.Instance{Source: i.Source, Mount: i.Mount, Path: i.Path, KVVersion: i.KVVersion, File: i.File}
}

// source returns the source of a secret, and connects to Vault for the first one that is there.
func (a *assembly) source(secret config.Instance, before *assembly) (sync.Source, error) {
	if a.sources[secret] != nil {
		return a.sources[secret], nil
	}
	isFile := secret.Source == config.SourceFile
	if !isFile && a.vault == nil {
		if err := a.useVault(before); err != nil {
			return nil, err
		}
	}
	switch {
	case before.sources[secret] != nil && (isFile || a.vault == before.vault):
		a.sources[secret] = before.sources[secret]
	case isFile:
		a.sources[secret] = jsonfile.New(secret.File, a.store.Key(), a.log)
	case secret.KVVersion == 1:
		a.sources[secret] = a.vault.KV1(secret.Mount, secret.Path)
	default:
		a.sources[secret] = a.vault.KV(secret.Mount, secret.Path)
	}
	return a.sources[secret], nil
}

// useVault takes the Vault of before if a new one would be the same.
func (a *assembly) useVault(before *assembly) (err error) {
	c := a.config
	from := vault.Config{
		Vault: c.Vault, Logger: a.log,
		State: login.State{StateDir: c.StateDir, DigestKey: a.store.Key(), OnlyReads: a.onlyLooks},
	}
	if a.onlyLooks {
		from.MakeStateDir = func() ([]byte, error) { return makeStateDir(c) }
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
	for i, in := range a.settings.Instances {
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

// closeVault revokes the token. It waits only a little, as Vault may be out of reach.
func (a *assembly) closeVault() {
	if a.vault == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_, err := deadline.Run(ctx, closeTime+deadline.Grace, "revoking the token", func() (struct{}, error) { return struct{}{}, a.vault.Close(ctx) })
	if err != nil {
		a.log.Warn("token not revoked, it ends by itself", "reason", err)
	}
}
