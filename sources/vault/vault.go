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
	"crypto/sha256"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/filewatch"
	"campaign-credsync/internal/regularfile"
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
	Meter  connection.Meter // nil: nobody counts
}

// Vault is one Vault server and the one token that all secrets read from it share. All methods may be called
// concurrently.
type Vault struct {
	config     Config
	made       []any // from makingOf
	connection *connection.Connection
	session    *session
	health     push.Health // what polls have found out
	seen       sync.Map    // file that a login reads → the sum of its content at the last look
}

// New checks the configuration and reads the certificates. It talks to nobody: a Vault that is down is found by the first
// Poll.
func New(config Config) (*Vault, error) {
	made := makingOf(config)
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	conn, err := connection.New(config.Vault, config.Logger, config.Meter)
	if err != nil {
		return nil, err
	}
	method, err := login.New(login.Config{Connection: conn, Auth: config.Auth, State: config.State, Logger: config.Logger})
	if err != nil {
		return nil, err
	}
	v := &Vault{config: config, made: made, connection: conn, session: &session{
		connection: conn, method: method, auth: config.Auth, logger: config.Logger, turn: make(chan struct{}, 1),
	}}
	for _, file := range method.Files() {
		v.seen.Store(file, sumOf(file))
	}
	return v, nil
}

// makingOf returns what a Vault is made from, so that it can be compared. It is asked before the files are read to be used: what
// changes in between is a change.
func makingOf(config Config) []any {
	made := []any{sha256.Sum256([]byte(config.Auth.RoleID.Reveal()))}
	for _, file := range []string{
		config.CACert, config.ClientCert, config.ClientKey,
		// A login with this is made again if it changes. Others are read so often that a change needs no more.
		config.Auth.RoleIDFile,
	} {
		made = append(made, sumOf(file))
	}
	config.Logger = nil
	config.Auth.RoleID = credential.Secret{} // which cannot be compared
	return append(made, config)
}

// sumOf tells contents of a file apart; it is zero for one that is empty or cannot be read, and for no name.
func sumOf(file string) [sha256.Size]byte {
	content, err := regularfile.Read(file, 16<<20)
	if file == "" || err != nil || len(content) == 0 {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(content)
}

// Serves reports whether New would make the same of config, also of the certificates and the role-id in their files as
// they are now. Then v, with its token and its connection, can be used in place of a new one: another secret-id it finds by itself.
func (v *Vault) Serves(config Config) bool { return reflect.DeepEqual(v.made, makingOf(config)) }

// quiet is how long a watched file must be left alone before it is read: half a secret-id is a wrong one, and wrong ones
// are counted.
const quiet = 100 * time.Millisecond

// Run watches what the login reads (the secret-id, token, JWT or certificate) and calls changed when another one is there
// than at New or at the last look, so that the next poll can be brought forward. It returns when ctx is done and everything it
// started has ended. Nothing depends on it, as each login reads the file anyway.
func (v *Vault) Run(ctx context.Context, changed func()) {
	var files []filewatch.File
	for _, file := range v.session.method.Files() {
		files = append(files, filewatch.File{Path: file, Quiet: quiet, Changed: func(bool) {
			now := sumOf(file)
			if before, _ := v.seen.Swap(file, now); before != now && now != ([sha256.Size]byte{}) {
				v.session.method.Retry(false)
				changed()
			}
		}})
	}
	filewatch.Watch(ctx, files, v.config.Logger)
}

// ResetBackoff forgets the waits after failures, for somebody who wants an answer now. A refused secret-id stays refused.
func (v *Vault) ResetBackoff() {
	v.connection.ResetThrottle()
	v.session.retry(false)
}

// RetryRefused is an operator's order: every wait is forgotten, and a refused secret-id may be tried once more, if it was
// not tried so often in a row that the role is near its lock.
func (v *Vault) RetryRefused() {
	v.connection.ResetThrottle()
	v.session.retry(true)
	v.health.AskAgain()
}

// SecretIDEnds returns when the secret-id ends that the login was made with. Zero: never, or not known.
func (v *Vault) SecretIDEnds() time.Time { return v.session.method.SecretIDEnds() }

// LoginFailure is why logins fail while the token of an earlier one serves. Nil: they do not, or that may end by itself.
func (v *Vault) LoginFailure() error {
	if failure := v.session.failure.Load(); failure != nil {
		return *failure
	}
	return nil
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
		if kv.engine == 2 {
			changed[kv.at("data")] = call
		}
	}
	return push.Config{
		Connection: v.connection, Namespace: v.config.Namespace, Health: &v.health, Poll: poll, Changed: changed, Logger: v.config.Logger,
	}
}

// Close revokes the token that this process logged in for, never one from a token file, and closes the connections.
// After it Poll answers with an error. Run, Subscribe and the polls under way should have ended before.
func (v *Vault) Close(ctx context.Context) error {
	defer v.connection.CloseIdle()
	return v.session.close(ctx)
}
