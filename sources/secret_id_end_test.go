package sources_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources/vaulttest"
)

func newEndingLab(t *testing.T, ttl, warn time.Duration) *lab {
	t.Helper()
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.server.MustSetPolicy(l.roleID, l.server.ReadPolicy(path)+l.server.LookupPolicy(l.roleID))
	l.server.MustSetRole(l.roleID, map[string]any{"secret_id_ttl": ttl.String()})
	l.writeSecretID(l.server.MustSecretID(l.roleID))
	l.config.Auth.SecretIDWarn = warn
	return l
}

func lookup(r vaulttest.Request) bool { return strings.HasSuffix(r.Path, "/secret-id/lookup") }

const endsSoon = "the secret-id ends soon"

func TestSecretIDThatEndsSoon(t *testing.T) {
	l := newEndingLab(t, 6*24*time.Hour, 7*24*time.Hour)
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	if err := l.log.Await(t.Context(), endsSoon); err != nil {
		t.Fatal(err)
	}
	date := time.Now().Add(6 * 24 * time.Hour).UTC().Format("2006-01-02")
	for _, word := range []string{"level=WARN", date, l.config.Auth.SecretIDFile, "put a new one there"} {
		if !strings.Contains(l.log.String(), word) {
			t.Errorf("does not say %q: %s", word, l.log)
		}
	}
	// Once, however many logins there are.
	for range 2 {
		l.server.MustRevokeRoleTokens(l.roleID)
		l.pollUntilRead(v, kv)
	}
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(l.log.String(), endsSoon); n != 1 {
		t.Errorf("%d warnings, want 1: %s", n, l.log)
	}
	if n := vaulttest.Count(l.proxy.Requests(), lookup); n != 1 {
		t.Errorf("%d lookups, want 1", n)
	}
}

func TestSecretIDThatNeedsNoWarning(t *testing.T) {
	for name, test := range map[string]struct {
		ttl, warn time.Duration
		lookups   int
	}{
		"ends late":  {9 * 24 * time.Hour, 7 * 24 * time.Hour, 1},
		"never ends": {0, 7 * 24 * time.Hour, 1},
		"not wanted": {time.Hour, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newEndingLab(t, test.ttl, test.warn)
			v := l.vault()
			l.mustPoll(l.kv(v), always)
			if err := l.proxy.Await(t.Context(), test.lookups, lookup); err != nil {
				t.Fatal(err)
			}
			if err := v.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(l.log.String(), endsSoon) {
				t.Errorf("warned: %s", l.log)
			}
			if n := vaulttest.Count(l.proxy.Requests(), lookup); n != test.lookups {
				t.Errorf("%d lookups, want %d", n, test.lookups)
			}
		})
	}
}

// Where the policy does not allow it nothing is said, and nothing asked again with that token.
func TestSecretIDThatMayNotBeLookedUp(t *testing.T) {
	l := newEndingLab(t, time.Hour, 7*24*time.Hour)
	l.server.MustSetPolicy(l.roleID, l.server.ReadPolicy(path))
	v := l.vault()
	kv := l.kv(v)
	for range 5 {
		l.mustPoll(kv, always)
	}
	if err := l.log.Await(t.Context(), "does not let us look up"); err != nil {
		t.Fatal(err)
	}
	l.mustPoll(kv, always)
	if n := vaulttest.Count(l.proxy.Requests(), lookup); n != 1 {
		t.Errorf("%d lookups, want 1", n)
	}
	for line := range strings.Lines(l.log.String()) {
		if !strings.Contains(line, "level=DEBUG") {
			t.Errorf("said: %s", line)
		}
	}
	l.server.MustSetPolicy(l.roleID, l.server.ReadPolicy(path)+l.server.LookupPolicy(l.roleID))
	l.server.MustRevokeRoleTokens(l.roleID)
	l.pollUntilRead(v, kv)
	if err := l.log.Await(t.Context(), endsSoon); err != nil {
		t.Fatal(err)
	}
}

// A question that is not answered holds up neither polls nor the stop.
func TestLookupThatHangs(t *testing.T) {
	l := newEndingLab(t, time.Hour, 7*24*time.Hour)
	hang := make(chan struct{})
	defer close(hang)
	l.proxy.Serve("/secret-id/lookup", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	v := l.vault()
	kv := l.kv(v)
	for range 3 {
		l.mustPoll(kv, always)
	}
	if err := l.proxy.Await(t.Context(), 1, lookup); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := l.server.MustRoleTokens(l.roleID); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
}
