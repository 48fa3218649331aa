package login_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault"
	"campaign-credsync/test/standin"
	"campaign-credsync/test/vaulttest"
)

// run starts v.Run and returns the signal that a change gives.
func run(t *testing.T, v *vault.Vault) <-chan struct{} {
	t.Helper()
	changed := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.Run(ctx, func() { changed <- struct{}{} })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return changed
}

func await(t *testing.T, changed <-chan struct{}) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(vaulttest.Patience):
		t.Fatal("no change was seen")
	}
}

func TestNewSecretIDIsPickedUp(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	right, second := l.Server.MustSecretID(l.RoleID), l.Server.MustSecretID(l.RoleID)
	l.WriteSecretID("00000000-canary-canary-canary-000000000000")
	v := l.Vault()
	kv := l.KV(v)
	l.MustFail(kv, "refused")
	changed := run(t, v)
	l.WriteSecretID(right)
	await(t, changed)
	l.MustPoll(kv, always)

	// As an editor or a provisioning tool does it: a new file moved over the old one.
	fresh := l.Config.Auth.SecretIDFile + ".tmp"
	l.Hidden = append(l.Hidden, second)
	if err := os.WriteFile(fresh, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, l.Config.Auth.SecretIDFile); err != nil {
		t.Fatal(err)
	}
	await(t, changed)
}

// A new secret-id in a file that is never left alone is found all the same.
func TestNewSecretIDInAFileThatIsTouchedAllTheTime(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	changed := run(t, l.Vault())
	standin.Touch(t, l.Config.Auth.SecretIDFile)
	l.WriteSecretID("another")
	select {
	case <-changed:
	case <-time.After(vaulttest.Patience):
		t.Errorf("it was not seen in %v", vaulttest.Patience)
	}
}

func TestWatchSurvivesItsDirectory(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	v := l.Vault()
	changed := run(t, v)
	dir := filepath.Dir(l.Config.Auth.SecretIDFile)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l.WriteSecretID("another")
	await(t, changed)
}

func TestSecretIDFile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Hidden = append(l.Hidden, "canary")
	for _, test := range []struct {
		name, content string
		words         []string
	}{
		{"empty", "", []string{"empty"}},
		{"newline only", "\n", []string{"empty"}},
		{"two lines", "canary-one\ncanary-two\n", []string{"second line"}},
		{"two newlines", "canary-one\n\n", []string{"second line"}},
		{"binary", "canary\x00one", []string{"does not belong"}},
		{"JSON", `{"secret_id":"canary"}`, []string{"JSON"}},
		{"JSON of many lines", "{\n  \"data\": {\"secret_id\": \"canary\"}\n}\n", []string{"JSON"}},
		{"quotes", `"canary-one"` + "\n", []string{"quotes"}},
		{"a token", "hvs.canarycanarycanarycanary\n", []string{"a token of Vault", "secret_id_wrapped"}},
		{"a token of OpenBao", "s.canarycanarycanarycanary", []string{"a token of Vault", "secret_id_wrapped"}},
		{"single quotes", `'canary-one'`, []string{"quotes"}},
		{"an assignment", "VAULT_SECRET_ID=canary-one\n", []string{"NAME="}},
		{"an export", "export SECRET_ID='canary-one'\n", []string{"NAME="}},
		{"YAML", "secret_id: canary-one\n", []string{"NAME="}},
		{"large", strings.Repeat("x", 1<<20), []string{"larger"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l.T = t
			if err := os.WriteFile(l.Config.Auth.SecretIDFile, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			l.MustFail(l.KV(l.Vault()), append(test.words, "vault.auth.secret_id_file", l.Config.Auth.SecretIDFile)...)
			if requests := l.Proxy.Requests(); len(requests) != 0 {
				t.Errorf("Vault was asked: %+v", requests)
			}
		})
	}
	l.T = t
	os.Remove(l.Config.Auth.SecretIDFile)
	l.MustFail(l.KV(l.Vault()), "no such file", "vault.auth.secret_id_file", "put the file there")
}

func TestRoleIDFile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.Config.Auth.RoleID, l.Config.Auth.RoleIDFile = credential.Secret{}, filepath.Join(t.TempDir(), "role_id")
	kv := l.KV(l.Vault())
	l.MustFail(kv, "vault.auth.role_id_file", "no such file")
	if err := os.WriteFile(l.Config.Auth.RoleIDFile, []byte(l.RoleID+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.MustPoll(kv, always)
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	policy := l.Server.ReadPolicy(path)
	token := l.Server.MustToken(policy, time.Hour)
	l.UseTokenFile(token)
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	if left := time.Until(v.TokenExpires()); left < 50*time.Minute || left > time.Hour {
		t.Errorf("the token ends in %s, want about an hour", left)
	}
	l.Proxy.Requests()
	l.MustPoll(kv, never)
	if requests := l.Proxy.Requests(); len(requests) != 1 {
		t.Errorf("a steady poll makes %+v", requests)
	}
	l.Server.MustRevoke(token)
	l.MustFail(kv, "permission denied", l.Config.Auth.TokenFile)
	second := l.Server.MustToken(policy, time.Hour)
	l.WriteToken(second)
	l.MustPoll(kv, always)
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It is not ours to revoke.
	again := l.Vault()
	l.MustPoll(l.KV(again), always)
	os.Remove(l.Config.Auth.TokenFile)
	l.MustFail(l.KV(again), "vault.auth.token_file", "no such file")
}

// The end of a token is for the status only: where the policy hides it, it is not known, and all else is as ever.
func TestTokenFileWhoseEndIsHidden(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.UseTokenFile(l.Server.MustToken(l.Server.ReadPolicy(path), time.Hour))
	l.Proxy.Answer("/lookup-self", http.StatusForbidden, "permission denied")
	v := l.Vault()
	l.MustPoll(l.KV(v), always)
	if end := v.TokenExpires(); !end.IsZero() {
		t.Errorf("the token ends at %s, which nobody said", end)
	}
	if l.Log.String() != "" {
		t.Errorf("said: %s", l.Log)
	}
}

func TestNewTokenFileIsPickedUp(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.UseTokenFile("first")
	changed := run(t, l.Vault())
	l.WriteToken("second")
	await(t, changed)
}
