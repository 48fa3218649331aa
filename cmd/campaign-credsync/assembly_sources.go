package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"campaign-credsync/sources"
	"campaign-credsync/sync"
)

// secret says where the credential of an instance is kept; its fields are beside the point.
type secret struct {
	mount, path string
	kvVersion   int
	file        string // of source file, and then the rest is empty
}

func secretOf(i instanceConfig) secret {
	if i.Source == sourceFile {
		return secret{file: filepath.Clean(i.File)}
	}
	return secret{mount: i.Mount, path: i.Path, kvVersion: i.KVVersion}
}

// source makes the source of the instance that is assembled next. The first that is in Vault brings the connection with it.
func (a *assembly) source(c *config, from secret, store *sync.Store, claims *claims) (sync.Source, error) {
	if from.file != "" {
		file := sources.NewFile(from.file, store.Key(), a.log)
		a.byFile[file] = len(a.instances)
		return file, nil
	}
	if a.vault == nil {
		var err error
		if a.vault, err = newVault(c, store, claims, a.log); err != nil {
			return nil, err
		}
	}
	if from.kvVersion == 1 {
		return a.vault.KV1(from.mount, from.path), nil
	}
	return a.vault.KV(from.mount, from.path), nil
}

func newVault(c *config, store *sync.Store, claims *claims, log *slog.Logger) (*sources.Vault, error) {
	return sources.NewVault(sources.VaultConfig{
		Address: c.Vault.Address, Namespace: c.Vault.Namespace,
		CACert: c.Vault.CACert, ClientCert: c.Vault.ClientCert, ClientKey: c.Vault.ClientKey,
		TLSServerName: c.Vault.TLSServerName,
		Auth: sources.Auth{
			Method: c.Vault.Auth.Method, Mount: c.Vault.Auth.Mount, Namespace: c.Vault.Auth.Namespace,
			RoleID: c.Vault.Auth.RoleID.Reveal(), RoleIDFile: c.Vault.Auth.RoleIDFile,
			SecretIDFile: c.Vault.Auth.SecretIDFile, TokenFile: c.Vault.Auth.TokenFile,
		},
		StateDir: c.StateDir, DigestKey: store.Key(), Logger: log,
		MakeStateDir: func() ([]byte, error) { return makeStateDir(c) }, OnlyReads: claims == nil,
	})
}

// watchSources brings polls forward until ctx ends: of all sources when there is another way to log in to Vault, of a file
// when its content is another.
func (a *assembly) watchSources(ctx context.Context, daemon *sync.Daemon) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		changed := map[*sources.File]func(){}
		for file, instance := range a.byFile {
			changed[file] = func() { daemon.Announced(instance) }
		}
		sources.WatchFiles(ctx, changed, a.log)
	}()
	if a.vault != nil {
		a.vault.Run(ctx, daemon.CheckSoon)
	}
	<-ended
}

// retry forgets what was refused, and every wait: the operator asks.
func (a *assembly) retry() {
	if a.vault != nil {
		a.vault.Retry()
	}
}

// soon forgets the waits.
func (a *assembly) soon() {
	if a.vault != nil {
		a.vault.Soon()
	}
}

// inVault tells which instances have their credential in Vault.
func (a *assembly) inVault() map[string]bool {
	names := map[string]bool{}
	for _, in := range a.instances {
		_, file := in.Source.(*sources.File)
		names[in.Name] = !file
	}
	return names
}

// document is the status as it is told.
func (a *assembly) document(s sync.Status) statusDocument {
	d := document(s, a.inVault())
	if a.vault != nil {
		d.Vault.TokenExpires = known(a.vault.TokenExpires())
	}
	return d
}

// closeTime bounds the revocation of the token at the end.
const closeTime = time.Second

// close revokes the token, for which it has a second: Vault may be what is out of reach.
func (a *assembly) close() {
	if a.vault == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := a.vault.Close(ctx); err != nil {
		a.log.Warn("token not revoked, it ends by itself", "reason", err)
	}
}
