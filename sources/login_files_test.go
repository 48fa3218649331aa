package sources_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources"
)

// run starts v.Run and returns the signal that a change gives.
func run(t *testing.T, v *sources.Vault) <-chan struct{} {
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
	case <-time.After(time.Minute):
		t.Fatal("no change was seen")
	}
}

func TestNewSecretIDIsPickedUp(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	right, second := l.server.MustSecretID(l.roleID), l.server.MustSecretID(l.roleID)
	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	v := l.vault()
	kv := l.kv(v)
	l.mustFail(kv, "refused")
	changed := run(t, v)
	l.writeSecretID(right)
	await(t, changed)
	l.mustPoll(kv, always)

	// As an editor or a provisioning tool does it: a new file moved over the old one.
	fresh := l.config.Auth.SecretIDFile + ".tmp"
	l.hidden = append(l.hidden, second)
	if err := os.WriteFile(fresh, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, l.config.Auth.SecretIDFile); err != nil {
		t.Fatal(err)
	}
	await(t, changed)
}

// touch has a file's times change again and again until the test ends, as a program that tends it may.
func touch(t *testing.T, file string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			os.Chtimes(file, time.Now(), time.Now()) // fails while the file is being replaced
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// A new secret-id in a file that is never left alone is found all the same.
func TestNewSecretIDInAFileThatIsTouchedAllTheTime(t *testing.T) {
	l := newLab(t)
	changed := run(t, l.vault())
	touch(t, l.config.Auth.SecretIDFile)
	l.writeSecretID("another")
	select {
	case <-changed:
	case <-time.After(time.Minute):
		t.Error("it was not seen in a minute")
	}
}

func TestWatchSurvivesItsDirectory(t *testing.T) {
	l := newLab(t)
	v := l.vault()
	changed := run(t, v)
	dir := filepath.Dir(l.config.Auth.SecretIDFile)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l.writeSecretID("another")
	await(t, changed)
}

func TestSecretIDFile(t *testing.T) {
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
		{"single quotes", `'canary-one'`, []string{"quotes"}},
		{"an assignment", "VAULT_SECRET_ID=canary-one\n", []string{"NAME="}},
		{"an export", "export SECRET_ID='canary-one'\n", []string{"NAME="}},
		{"YAML", "secret_id: canary-one\n", []string{"NAME="}},
		{"a token", "hvs.canarycanarycanarycanary\n", []string{"a token of Vault", "secret_id_wrapped"}},
		{"a token of OpenBao", "s.canarycanarycanarycanary", []string{"a token of Vault", "secret_id_wrapped"}},
		{"large", strings.Repeat("x", 1<<20), []string{"larger"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			l.hidden = append(l.hidden, "canary")
			if err := os.WriteFile(l.config.Auth.SecretIDFile, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			l.mustFail(l.kv(l.vault()), append(test.words, "vault.auth.secret_id_file", l.config.Auth.SecretIDFile)...)
			if requests := l.proxy.Requests(); len(requests) != 0 {
				t.Errorf("Vault was asked: %+v", requests)
			}
		})
	}
	l := newLab(t)
	os.Remove(l.config.Auth.SecretIDFile)
	l.mustFail(l.kv(l.vault()), "no such file", "vault.auth.secret_id_file", "put the file there")
}

func TestRoleIDFile(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.config.Auth.RoleID, l.config.Auth.RoleIDFile = "", filepath.Join(t.TempDir(), "role_id")
	kv := l.kv(l.vault())
	l.mustFail(kv, "vault.auth.role_id_file", "no such file")
	if err := os.WriteFile(l.config.Auth.RoleIDFile, []byte(l.roleID+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.mustPoll(kv, always)
}

func TestTokenFile(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	policy := l.server.ReadPolicy(path)
	token := l.server.MustToken(policy, time.Hour)
	l.useTokenFile(token)
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	if left := time.Until(v.TokenExpires()); left < 50*time.Minute || left > time.Hour {
		t.Errorf("the token ends in %s, want about an hour", left)
	}
	l.proxy.Requests()
	l.mustPoll(kv, never)
	if requests := l.proxy.Requests(); len(requests) != 1 {
		t.Errorf("a steady poll makes %+v", requests)
	}
	l.server.MustRevoke(token)
	l.mustFail(kv, "permission denied", l.config.Auth.TokenFile)
	second := l.server.MustToken(policy, time.Hour)
	l.writeToken(second)
	l.mustPoll(kv, always)
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It is not ours to revoke.
	again := l.vault()
	l.mustPoll(l.kv(again), always)
	os.Remove(l.config.Auth.TokenFile)
	l.mustFail(l.kv(again), "vault.auth.token_file", "no such file")
}

// The end of a token is for the status only: where the policy hides it, it is not known, and all else is as ever.
func TestTokenFileWhoseEndIsHidden(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.useTokenFile(l.server.MustToken(l.server.ReadPolicy(path), time.Hour))
	l.proxy.Answer("/lookup-self", http.StatusForbidden, "permission denied")
	v := l.vault()
	l.mustPoll(l.kv(v), always)
	if end := v.TokenExpires(); !end.IsZero() {
		t.Errorf("the token ends at %s, which nobody said", end)
	}
	if l.log.String() != "" {
		t.Errorf("said: %s", l.log)
	}
}

func TestNewTokenFileIsPickedUp(t *testing.T) {
	l := newLab(t)
	l.useTokenFile("first")
	changed := run(t, l.vault())
	l.writeToken("second")
	await(t, changed)
}
