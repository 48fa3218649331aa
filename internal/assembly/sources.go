package assembly

import (
	"cmp"
	"context"
	"errors"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/sources/jsonfile"
	"campaign-credsync/sources/vault"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
	"campaign-credsync/sync"
)

// secret says where a secret is. Instances with the same secret share its source, also when they take other fields of it.
type secret struct {
	vault       *vault.Vault // nil: in a file
	mount, path string
	kvVersion   int
	file        string
}

// source takes the source of another instance, or of before, if a new one would be the same.
func (a *assembly) source(i config.Instance, before *assembly) sync.Source {
	from := secret{a.vault, i.Mount, i.Path, i.KVVersion, i.File}
	if i.Source == config.SourceFile {
		from.vault = nil
	}
	source := cmp.Or(a.sources[from], before.sources[from])
	switch {
	case source != nil:
	case from.vault == nil:
		source = jsonfile.New(from.file, a.store.Key(), a.log)
	default:
		source = a.vault.KV(from.mount, from.path, from.kvVersion)
	}
	a.sources[from] = source
	return source
}

// useVault connects to Vault where an instance needs it. It takes the Vault of before if a new one would be the same.
func (a *assembly) useVault(onlyLooks bool, before *assembly) (err error) {
	c := a.config
	if c.Vault.Address == "" {
		return nil
	}
	from := vault.Config{
		Vault: c.Vault, Logger: a.log, Meter: a.meter,
		State: login.State{StateDir: c.StateDir, DigestKey: a.store.Key()},
	}
	if onlyLooks {
		from.MakeStateDir = func() ([]byte, error) { return makeStateDir(c) }
	}
	if before.vault != nil && before.vault.Serves(from) {
		a.vault = before.vault
		return nil
	}
	a.vault, err = vault.New(from)
	if setting, ok := errors.AsType[*connection.SettingError](err); ok {
		return c.At(setting.Key, setting.Err)
	}
	return err
}

// examine asks Vault what the login may do. Where no instance needs Vault, there is nothing to tell.
func (a *assembly) examine(ctx context.Context) vault.Examination {
	if a.vault == nil {
		return vault.Examination{}
	}
	var uses []vault.Use
	for _, i := range a.config.Instances {
		if i.Source != config.SourceFile {
			uses = append(uses, vault.Use{Instance: i.Name, Mount: i.Mount, Path: i.Path, KVVersion: i.KVVersion, Fields: i.Fields.Names()})
		}
	}
	return a.vault.Examine(ctx, uses)
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
	_, err := deadline.Run(ctx, closeTime+deadline.Grace, "revoking the token", "see whether Vault answers", func() (struct{}, error) { return struct{}{}, a.vault.Close(ctx) })
	if err != nil {
		a.log.Warn("token not revoked, it ends by itself", "reason", err)
	}
}
