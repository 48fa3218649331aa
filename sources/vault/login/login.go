// Package login gets tokens from Vault: by AppRole, a client certificate, a signed token, or from a file.
//
// Vault locks an AppRole role for everybody after five refused secret-ids, so one that was refused, or may have been, is
// remembered across restarts and not tried again too often. A wrapped secret-id is unwrapped once and kept.
//
// The package does not decide when to log in: its caller does.
package login

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
)

// State says where a login is remembered.
type State struct {
	// StateDir is where a refused secret-id is remembered, by digest, and an unwrapped one kept.
	StateDir  string
	DigestKey []byte
	// MakeStateDir is for whoever only reads: no secret-id is unwrapped, and a login is noted only where it failed. It makes StateDir
	// where it is not there, and returns the key that belongs to it.
	MakeStateDir func() (digestKey []byte, err error)
}

func (s *State) onlyReads() bool { return s.MakeStateDir != nil }

// Config says how to log in to which Vault.
type Config struct {
	Connection *connection.Connection
	Auth       config.Auth
	State      State
	Logger     *slog.Logger
}

// New asks nobody.
func New(c Config) (*Method, error) {
	m := &Method{
		connection: c.Connection, auth: c.Auth, logger: c.Logger,
		refusals: &refusals{State: c.State, logger: c.Logger},
	}
	switch c.Auth.Method {
	case config.MethodAppRole:
		m.appRole()
	case config.MethodCert:
		return m, m.cert()
	case config.MethodKubernetes, config.MethodJWT:
		m.jwt()
	case config.MethodTokenFile:
		m.tokenFile, m.files = &tokenFile{Config: c}, []string{c.Auth.TokenFile}
	default:
		return nil, fmt.Errorf("vault.auth.method: %q is not known", c.Auth.Method)
	}
	return m, nil
}

// Token is one token of Vault's. It does not change, apart from its uses.
type Token struct {
	Text      credential.Secret
	Born      time.Time
	Expires   time.Time // zero: never or not known
	Revocable bool      // by this process, which has logged in for it; a batch token is not

	secretID credential.Secret // that it was got with; zero: none
	role     string            // as Vault calls it; empty: not said

	renew time.Time     // when to log in again; zero: never
	uses  *atomic.Int64 // that are left; nil: any number
}

// Expired reports whether Vault has ended the token for certain; an unknown end is not one.
func (t *Token) Expired() bool {
	return !t.Expires.IsZero() && !time.Now().Before(t.Expires) || t.spent()
}

// Fresh reports whether no other token is due.
func (t *Token) Fresh() bool {
	return (t.renew.IsZero() || time.Now().Before(t.renew)) && !t.spent()
}

// Use takes one of the uses, if one is left.
func (t *Token) Use() bool { return t.uses == nil || t.uses.Add(-1) >= 0 }

// FewUses reports whether the token may be used a limited number of times.
func (t *Token) FewUses() bool { return t.uses != nil }

func (t *Token) spent() bool { return t.uses != nil && t.uses.Load() <= 0 }
