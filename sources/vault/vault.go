// Package vault reads secrets of KV mounts of HashiCorp Vault (or OpenBao), with one connection and one token for all of
// them. Of version 2 of the engine it looks at the metadata, and reads the secret only when its asker needs that version;
// version 1 has nothing lighter than the secret itself.
//
// It never retries by itself: it tells what it found or why it found nothing, at once, and until when Vault must be left
// alone. When to ask again is its caller's business; push.Subscribe only tells when that is worth while. It decides
// nothing about what is applied, and knows nothing about Campaign.
package vault

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
	"campaign-credsync/sources/vault/push"
)

// Config says where Vault is and how to log in to it. The environment is not consulted: whoever wants VAULT_ADDR and its
// like merges them in before. DigestKey is also that of the versions of a KV version 1 mount. Logger may be nil.
type Config struct {
	config.Vault
	login.State
	Logger *slog.Logger
}

// Vault is one Vault server and the one token that all secrets read from it share. All methods may be called
// concurrently.
type Vault struct {
	made       made
	connection *connection.Connection
	namespace  string
	digestKey  []byte
	logger     *slog.Logger
	session    *session
	health     push.Health // what polls have found out
	watched    []*watchedFile
	watching   chan struct{} // 1 slot: the call of Run that watches
	retries    atomic.Int64  // counts RetryRefused, so that each KV sees it
}

// New checks the configuration and reads the certificates. It talks to nobody: a Vault that is down is found by the first
// Poll.
func New(config Config) (*Vault, error) {
	made := makingOf(config)
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	conn, err := connection.New(config.Vault, config.Logger)
	if err != nil {
		return nil, err
	}
	method, err := login.New(login.Config{Connection: conn, Auth: config.Auth, State: config.State, Logger: config.Logger})
	if err != nil {
		return nil, err
	}
	v := &Vault{
		made: made, connection: conn, namespace: config.Namespace, digestKey: config.DigestKey, logger: config.Logger,
		session:  newSession(conn, method, config.Auth, config.Logger),
		watching: make(chan struct{}, 1),
	}
	for _, file := range method.Files() {
		v.watched = append(v.watched, &watchedFile{file, sumOf(file)})
	}
	return v, nil
}

// ResetBackoff forgets the waits after failures, for somebody who wants an answer now. A refused secret-id stays refused.
func (v *Vault) ResetBackoff() {
	v.connection.ResetThrottle()
	v.session.retry(false)
}

// RetryRefused is the operator's word: every wait is forgotten, and a refused secret-id may be tried once more, if it was
// not tried so often in a row that the role is near its lock.
func (v *Vault) RetryRefused() {
	v.retries.Add(1)
	v.connection.ResetThrottle()
	v.session.retry(true)
	v.health.AskAgain()
}

// TokenExpires tells when the token in use ends; zero when there is none, it never ends or its end is not known.
func (v *Vault) TokenExpires() time.Time {
	t := v.session.current.Load()
	if t == nil {
		return time.Time{}
	}
	return t.Expires
}

// PushConfig is for [push.Subscribe]: a secret's func is called when that may have a new version. Each KV must name a secret
// of its own; those of version 1 have no events. poll is the interval of the polls.
func (v *Vault) PushConfig(poll time.Duration, secrets map[*KV]func()) push.Config {
	changed := map[string]func(){}
	for kv, call := range secrets {
		if _, ok := kv.engine.(*kv2); ok {
			changed[kv.at("data")] = call
		}
	}
	return push.Config{
		Connection: v.connection, Namespace: v.namespace, Health: &v.health, Poll: poll, Changed: changed, Logger: v.logger,
	}
}

// Close revokes the token that this process logged in for, never one from a token file, and closes the connections.
// After it Poll answers with an error. Run, Subscribe and the polls under way should have ended before.
func (v *Vault) Close(ctx context.Context) error {
	defer v.connection.CloseIdle()
	return v.session.close(ctx)
}
