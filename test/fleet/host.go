// Package fleet is many hosts in one process: each has the daemon's own code for Vault (package sources/vault) and for its
// decisions (package sync), with a login, a token, a connection and a state directory of its own.
//
// Campaign is left out: the configuration file of a host is in memory, and nothing is activated. So is the watch of the
// secret-id's file, as the kernel has too few inotify instances for a thousand. What Vault sees is what it sees of as
// many daemons.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault"
	"campaign-credsync/sources/vault/login"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// Config says what a host is to be like.
type Config struct {
	Dir              string // must be there, and be empty; belongs to the host
	Address          string // of Vault
	AuthMount        string // AppRole, below auth/
	RoleID, SecretID string
	Mount, Path      string        // of the secret, in a KV version 2 mount
	Poll             time.Duration // 0: the default
	// OnStatus is called whenever the host's status changed, one call at a time. It must not block.
	OnStatus func([]credsync.InstanceStatus)
	Logger   *slog.Logger // nil discards
}

// Host is a daemon that runs, or ran. Its methods may be called concurrently.
type Host struct {
	vault  *vault.Vault
	store  *state.Store
	file   *file
	stop   context.CancelFunc
	ended  chan struct{}
	closed atomic.Bool
}

// Start starts a host. Stop ends it.
func Start(c Config) (*Host, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Poll == 0 {
		c.Poll = 30 * time.Second
	}
	secretID := filepath.Join(c.Dir, "secret_id")
	if err := os.WriteFile(secretID, []byte(c.SecretID+"\n"), 0o600); err != nil {
		return nil, err
	}
	dir := filepath.Join(c.Dir, "state")
	store, err := state.Open(dir, 0)
	if err != nil {
		return nil, err
	}
	h := &Host{store: store, file: &file{}, ended: make(chan struct{})}
	h.vault, err = vault.New(vault.Config{
		Vault: config.Vault{
			Address: c.Address,
			Auth:    config.Auth{Method: "approle", Mount: c.AuthMount, RoleID: credential.NewSecret(c.RoleID), SecretIDFile: secretID},
		},
		Logger: c.Logger,
		State:  login.State{StateDir: dir, DigestKey: store.Key()},
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	daemon := credsync.New(credsync.Config{
		Instances: []credsync.Instance{{Name: "prod", Source: h.vault.KV(c.Mount, c.Path, 2), Sink: h.file}},
		Activator: nothing{},
		Store:     store,
		Poll:      c.Poll,
		OnStatus:  c.OnStatus,
		Logger:    c.Logger,

		Revert: credsync.RevertSplice, MaxReverts: 60, CommandRuns: func() bool { return false },
	})
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	go func() {
		defer close(h.ended)
		daemon.Run(ctx)
	}()
	return h, nil
}

// ClientSecret is what the host's configuration file holds.
func (h *Host) ClientSecret() string { return h.file.holds().ClientSecret.Reveal() }

// Stop ends the daemon as SIGTERM does: it revokes its token. A second call does nothing.
func (h *Host) Stop(ctx context.Context) error {
	if h.closed.Swap(true) {
		return nil
	}
	h.stop()
	<-h.ended
	err := h.vault.Close(ctx)
	if closed := h.store.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("stop a host: %w", err)
	}
	return nil
}
