// Package vaultlab is a real Vault with a secret, and a host's way to it: what the tests of package vault, and of those below
// it, begin with.
package vaultlab

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault"
	"campaign-credsync/sources/vault/login"
	"campaign-credsync/test/logtest"
	"campaign-credsync/test/vaulttest"
)

// Path is where the secret is.
const Path = "campaign/prod/oauth"

// Canary is the client secret; it must be found in no error and no log line.
const Canary = "p8e-CanaryCanaryCanaryCanaryCanary12"

// OAuth is what a secret holds, with changes: pairs of a key and a value, nil for none.
func OAuth(changes ...any) map[string]any {
	data := map[string]any{
		"ims_org_id":           "0123456789ABCDEF01234567@AdobeOrg",
		"client_id":            "0123456789abcdef0123456789abcdef",
		"technical_account_id": "0123456789ABCDEF@techacct.adobe.com",
		"client_secret":        Canary,
	}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == nil {
			delete(data, changes[i].(string))
		} else {
			data[changes[i].(string)] = changes[i+1]
		}
	}
	return data
}

// Lab is a real Vault, a role that may read the secret, a proxy before the Vault and the configuration for all that.
type Lab struct {
	T      *testing.T
	Server *vaulttest.Server
	Proxy  *vaulttest.Proxy
	RoleID string
	Config vault.Config
	Log    *logtest.Buffer
	Hidden []string // what must show nowhere
}

// New makes a lab whose role may read the secret, on the Vault that a package's tests share.
func New(t *testing.T) *Lab {
	t.Helper()
	return With(t, (*vaulttest.Server).ReadPolicy, time.Hour)
}

// With makes a lab with a policy, and with tokens that live for ttl.
func With(t *testing.T, policy func(s *vaulttest.Server, path string) string, ttl time.Duration) *Lab {
	t.Helper()
	return On(t, vaulttest.Shared(t), policy, ttl)
}

// On makes a lab on a Vault that is there.
func On(t *testing.T, server *vaulttest.Server, policy func(s *vaulttest.Server, path string) string, ttl time.Duration) *Lab {
	t.Helper()
	l := &Lab{T: t, Server: server, Log: &logtest.Buffer{}}
	l.Proxy = l.Server.Proxy(t)
	roleID, secretID := l.Server.MustRole(policy(l.Server, Path), ttl)
	l.RoleID = roleID
	file := filepath.Join(t.TempDir(), "secret_id")
	l.Config = vault.Config{
		Vault: config.Vault{
			Address: l.Proxy.Address,
			Auth:    config.Auth{Method: "approle", Mount: l.Server.AuthMount, RoleID: credential.NewSecret(roleID), SecretIDFile: file},
		},
		Logger: slog.New(slog.NewTextHandler(l.Log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		State:  login.State{StateDir: t.TempDir(), DigestKey: []byte("0123456789abcdef0123456789abcdef")},
	}
	l.Hidden = []string{Canary}
	l.WriteSecretID(secretID)
	t.Cleanup(func() { l.MustNotShow("the log", l.Log.String()) })
	return l
}

// WriteSecretID puts a secret-id where the login reads it.
func (l *Lab) WriteSecretID(secretID string) {
	l.T.Helper()
	l.Hidden = append(l.Hidden, secretID)
	if err := os.WriteFile(l.Config.Auth.SecretIDFile, []byte(secretID+"\n"), 0o600); err != nil {
		l.T.Fatal(err)
	}
}

// Wrap makes the secret-id file hold a new secret-id's wrapping token, which it returns.
func (l *Lab) Wrap(ttl time.Duration) (token string) {
	l.T.Helper()
	l.Config.Auth.SecretIDWrapped = true
	token = l.Server.MustWrappedSecretID(l.RoleID, ttl)
	l.WriteSecretID(token)
	return token
}

// UseTokenFile makes token_file the method, with token in the file.
func (l *Lab) UseTokenFile(token string) {
	l.T.Helper()
	file := filepath.Join(l.T.TempDir(), "token")
	l.Config.Auth = config.Auth{Method: "token_file", TokenFile: file}
	l.WriteToken(token)
}

// WriteToken puts a token where the login reads it.
func (l *Lab) WriteToken(token string) {
	l.T.Helper()
	l.Hidden = append(l.Hidden, token)
	if err := os.WriteFile(l.Config.Auth.TokenFile, []byte(token+"\n"), 0o600); err != nil {
		l.T.Fatal(err)
	}
}

// MustNotShow wants none of what is hidden in text.
func (l *Lab) MustNotShow(where, text string) {
	l.T.Helper()
	for _, secret := range l.Hidden {
		if secret != "" && strings.Contains(text, secret) {
			l.T.Errorf("%s shows a secret: %s", where, text)
		}
	}
	if strings.Contains(text, "hvs.") {
		l.T.Errorf("%s shows a token: %s", where, text)
	}
}

// Vault makes one that is closed at the end.
func (l *Lab) Vault() *vault.Vault {
	l.T.Helper()
	v, err := vault.New(l.Config)
	if err != nil {
		l.T.Fatal(err)
	}
	l.T.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		v.Close(ctx) // the Vault may be down by now
	})
	return v
}

// KV is the secret.
func (l *Lab) KV(v *vault.Vault) *vault.KV { return v.KV(l.Server.Mount, Path, 2) }

// Always wants every version.
func Always(credential.Version) bool { return true }

// Never wants none.
func Never(credential.Version) bool { return false }

// Source is what the tests need of every source.
type Source interface {
	Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error)
}

// Picked is the credential of a reading, whose fields have the usual names.
func (l *Lab) Picked(reading credential.Reading) credential.Credential {
	l.T.Helper()
	c, refusal := reading.Credential(nil)
	if refusal != nil {
		l.T.Fatal(refusal)
	}
	return c
}

// MustPoll polls, and wants no error.
func (l *Lab) MustPoll(kv Source, need func(credential.Version) bool) credential.Reading {
	l.T.Helper()
	reading, err := kv.Poll(l.T.Context(), need)
	if err != nil {
		l.T.Fatalf("poll: %v", err)
	}
	return reading
}

// MustFail polls, wants an error that says each of words and shows no secret, and returns it.
func (l *Lab) MustFail(kv Source, words ...string) error {
	l.T.Helper()
	reading, err := PollWith(l.T.Context(), kv, nil)
	if err == nil {
		l.T.Fatalf("poll: no error, version %v", reading.Version)
	}
	l.FailsWith(err, words...)
	return err
}

// PollWith polls and takes the credential by its fields.
func PollWith(ctx context.Context, s Source, fields credential.Fields) (credential.Reading, error) {
	reading, err := s.Poll(ctx, Always)
	if err != nil {
		return reading, err
	}
	if _, refusal := reading.Credential(fields); refusal != nil {
		return reading, refusal
	}
	return reading, nil
}

// FailsWith wants an error that says each of words and shows no secret.
func (l *Lab) FailsWith(err error, words ...string) {
	l.T.Helper()
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			l.T.Errorf("the error does not say %q: %v", word, err)
		}
	}
	l.MustNotShow("the error", err.Error())
	if strings.ContainsAny(err.Error(), "\n\r\t\x1b") {
		l.T.Errorf("the error has control characters: %q", err)
	}
}

// MustRefuse wants a poll to refuse the version.
func (l *Lab) MustRefuse(kv Source, version int, words ...string) {
	l.T.Helper()
	l.IsRefusal(l.MustFail(kv, words...), version)
}

// IsRefusal wants err to refuse the version.
func (l *Lab) IsRefusal(err error, version int) {
	l.T.Helper()
	var refusal *credential.Refusal
	if !errors.As(err, &refusal) {
		l.T.Fatalf("not a refusal: %v", err)
	}
	if refusal.Version.Number != version {
		l.T.Errorf("version %d refused, want %d", refusal.Version.Number, version)
	}
}

// Logins counts the logins since it was called last.
func (l *Lab) Logins() int { return vaulttest.Count(l.Proxy.Requests(), vaulttest.Request.Login) }

// Eventually waits until holds does.
func (l *Lab) Eventually(holds func() bool) {
	l.T.Helper()
	ctx, cancel := context.WithTimeout(l.T.Context(), vaulttest.Patience)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			l.T.Fatal("in vain")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// PollEach polls that many paths at once and returns how each ended.
func (l *Lab) PollEach(v *vault.Vault, paths int) (errs []error) {
	l.T.Helper()
	ended := make(chan error)
	for range paths {
		kv := l.KV(v)
		go func() { _, err := kv.Poll(l.T.Context(), Never); ended <- err }()
	}
	for range paths {
		select {
		case err := <-ended:
			errs = append(errs, err)
		case <-time.After(vaulttest.Patience):
			l.T.Fatalf("in vain: %d of %d polls have ended", len(errs), paths)
		}
	}
	return errs
}
