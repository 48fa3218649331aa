package sources_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/logtest"
	"campaign-credsync/sources"
	"campaign-credsync/sources/vaulttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const path = "campaign/prod/oauth"

// secretCanary must be found in no error and no log line.
const secretCanary = "p8e-CanaryCanaryCanaryCanaryCanary12"

func oauth(changes ...any) map[string]any {
	data := map[string]any{
		"ims_org_id":           "0123456789ABCDEF01234567@AdobeOrg",
		"client_id":            "0123456789abcdef0123456789abcdef",
		"technical_account_id": "0123456789ABCDEF@techacct.adobe.com",
		"client_secret":        secretCanary,
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

// lab is a real Vault, a role that may read the secret, a proxy before the Vault and the configuration for all that.
type lab struct {
	t        *testing.T
	server   *vaulttest.Server
	proxy    *vaulttest.Proxy
	roleID   string
	config   sources.VaultConfig
	log      *logtest.Buffer
	hidden   []string // what must show nowhere
	lastSaid string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return newLabWith(t, (*vaulttest.Server).ReadPolicy, time.Hour)
}

func newLabWith(t *testing.T, policy func(s *vaulttest.Server, path string) string, ttl time.Duration) *lab {
	t.Helper()
	return newLabOn(t, vaulttest.Start(t), policy, ttl)
}

func newLabOn(t *testing.T, server *vaulttest.Server, policy func(s *vaulttest.Server, path string) string, ttl time.Duration) *lab {
	t.Helper()
	l := &lab{t: t, server: server, log: &logtest.Buffer{}}
	l.proxy = l.server.Proxy(t)
	roleID, secretID := l.server.MustRole(policy(l.server, path), ttl)
	l.roleID = roleID
	file := filepath.Join(t.TempDir(), "secret_id")
	l.config = sources.VaultConfig{
		Address:   l.proxy.Address,
		Auth:      sources.Auth{Method: "approle", Mount: l.server.AuthMount, RoleID: roleID, SecretIDFile: file},
		StateDir:  t.TempDir(),
		DigestKey: []byte("0123456789abcdef0123456789abcdef"),
		Logger:    slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	l.hidden = []string{secretCanary}
	l.writeSecretID(secretID)
	t.Cleanup(func() { l.mustNotShow("the log", l.log.String()) })
	return l
}

func (l *lab) writeSecretID(secretID string) {
	l.t.Helper()
	l.hidden = append(l.hidden, secretID)
	if err := os.WriteFile(l.config.Auth.SecretIDFile, []byte(secretID+"\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// wrap makes the secret-id file hold a new secret-id's wrapping token, which it returns.
func (l *lab) wrap(ttl time.Duration) (token string) {
	l.t.Helper()
	l.config.Auth.SecretIDWrapped = true
	token = l.server.MustWrappedSecretID(l.roleID, ttl)
	l.writeSecretID(token)
	return token
}

// useTokenFile makes token_file the method, with token in the file.
func (l *lab) useTokenFile(token string) {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "token")
	l.config.Auth = sources.Auth{Method: "token_file", TokenFile: file}
	l.writeToken(token)
}

func (l *lab) writeToken(token string) {
	l.t.Helper()
	l.hidden = append(l.hidden, token)
	if err := os.WriteFile(l.config.Auth.TokenFile, []byte(token+"\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) mustNotShow(where, text string) {
	l.t.Helper()
	for _, secret := range l.hidden {
		if secret != "" && strings.Contains(text, secret) {
			l.t.Errorf("%s shows a secret: %s", where, text)
		}
	}
	if strings.Contains(text, "hvs.") {
		l.t.Errorf("%s shows a token: %s", where, text)
	}
}

// vault makes a source that is closed at the end.
func (l *lab) vault() *sources.Vault {
	l.t.Helper()
	v, err := sources.NewVault(l.config)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		v.Close(ctx) // the Vault may be down by now
	})
	return v
}

func (l *lab) kv(v *sources.Vault) *sources.KV { return v.KV(l.server.Mount, path) }

func always(credential.Version) bool { return true }
func never(credential.Version) bool  { return false }

// source is what the tests need of every source.
type source interface {
	Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error)
}

// picked is the credential of a reading, whose fields have the usual names.
func (l *lab) picked(reading credential.Reading) credential.Credential {
	l.t.Helper()
	c, refusal := reading.Credential(nil)
	if refusal != nil {
		l.t.Fatal(refusal)
	}
	return c
}

func (l *lab) mustPoll(kv source, need func(credential.Version) bool) credential.Reading {
	l.t.Helper()
	reading, err := kv.Poll(l.t.Context(), need)
	if err != nil {
		l.t.Fatalf("poll: %v", err)
	}
	return reading
}

// mustFail polls, wants an error that says each of words and shows no secret, and returns it.
func (l *lab) mustFail(kv source, words ...string) error {
	l.t.Helper()
	reading, err := pollWith(l.t.Context(), kv, nil)
	if err == nil {
		l.t.Fatalf("poll: no error, version %v", reading.Version)
	}
	l.failsWith(err, words...)
	return err
}

// pollWith polls and takes the credential by its fields.
func pollWith(ctx context.Context, s source, fields credential.Fields) (credential.Reading, error) {
	reading, err := s.Poll(ctx, always)
	if err != nil {
		return reading, err
	}
	if _, refusal := reading.Credential(fields); refusal != nil {
		return reading, refusal
	}
	return reading, nil
}

// failsWith wants an error that says each of words and shows no secret.
func (l *lab) failsWith(err error, words ...string) {
	l.t.Helper()
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			l.t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	l.mustNotShow("the error", err.Error())
	if strings.ContainsAny(err.Error(), "\n\r\t\x1b") {
		l.t.Errorf("the error has control characters: %q", err)
	}
}

func (l *lab) mustRefuse(kv source, version int, words ...string) {
	l.t.Helper()
	l.isRefusal(l.mustFail(kv, words...), version)
}

func (l *lab) isRefusal(err error, version int) {
	l.t.Helper()
	var refusal *credential.Refusal
	if !errors.As(err, &refusal) {
		l.t.Fatalf("not a refusal: %v", err)
	}
	if refusal.Version.Number != version {
		l.t.Errorf("version %d refused, want %d", refusal.Version.Number, version)
	}
}

func (l *lab) logins() int { return vaulttest.Count(l.proxy.Requests(), vaulttest.Request.Login) }
