package login_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/vaulttest"
)

func newEndingLab(t *testing.T, ttl, warn time.Duration) *lab {
	t.Helper()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.Server.MustSetPolicy(l.RoleID, l.Server.ReadPolicy(path)+l.Server.LookupPolicy(l.RoleID))
	l.Server.MustSetRole(l.RoleID, map[string]any{"secret_id_ttl": ttl.String()})
	l.WriteSecretID(l.Server.MustSecretID(l.RoleID))
	l.Config.Auth.SecretIDWarn = warn
	return l
}

func lookup(r vaulttest.Request) bool { return strings.HasSuffix(r.Path, "/secret-id/lookup") }

const endsSoon = "the secret-id ends soon"

func TestSecretIDThatEndsSoon(t *testing.T) {
	t.Parallel()
	const ttl = 6 * 24 * time.Hour
	first := dateIn(ttl)
	l := newEndingLab(t, ttl, 7*24*time.Hour)
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	if err := l.Log.Await(t.Context(), endsSoon); err != nil {
		t.Fatal(err)
	}
	date := dateIn(ttl)
	if strings.Contains(l.Log.String(), "expires="+first) { // a midnight may have passed since
		date = first
	}
	for _, word := range []string{"level=WARN", "expires=" + date, l.Config.Auth.SecretIDFile, "put a new one there"} {
		if !strings.Contains(l.Log.String(), word) {
			t.Errorf("does not say %q: %s", word, l.Log)
		}
	}
	// Once, however many logins there are.
	for range 2 {
		l.Server.MustRevokeRoleTokens(l.RoleID)
		l.pollUntilRead(v, kv)
	}
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(l.Log.String(), endsSoon); n != 1 {
		t.Errorf("%d warnings, want 1: %s", n, l.Log)
	}
	if n := vaulttest.Count(l.Proxy.Requests(), lookup); n != 3 {
		t.Errorf("%d lookups, want one for each login", n)
	}
}

func dateIn(d time.Duration) string { return time.Now().Add(d).UTC().Format("2006-01-02") }

func TestSecretIDThatNeedsNoWarning(t *testing.T) {
	t.Parallel()
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
			v := l.Vault()
			l.MustPoll(l.KV(v), always)
			if err := l.Proxy.Await(t.Context(), test.lookups, lookup); err != nil {
				t.Fatal(err)
			}
			if err := v.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(l.Log.String(), endsSoon) {
				t.Errorf("warned: %s", l.Log)
			}
			if n := vaulttest.Count(l.Proxy.Requests(), lookup); n != test.lookups {
				t.Errorf("%d lookups, want %d", n, test.lookups)
			}
		})
	}
}

// The end comes near while the token is fresh: it is not the next login that finds out.
func TestSecretIDWhoseEndComesNear(t *testing.T) {
	t.Parallel()
	const ttl = 5 * time.Minute // the wait is random by up to a hundredth
	l := newEndingLab(t, ttl, ttl-3*time.Second)
	for tries := 1; ; tries++ {
		l.WriteSecretID(l.Server.MustSecretID(l.RoleID))
		kv := l.KV(l.Vault())
		l.MustPoll(kv, never)
		before := strings.Count(l.Log.String(), endsSoon)
		if before == tries { // the machine was so busy that the end was near already
			if tries == 50 {
				t.Fatal("the end is near at each first login")
			}
			l.Proxy.Requests()
			continue
		}
		l.Eventually(func() bool {
			l.MustPoll(kv, never)
			return strings.Count(l.Log.String(), endsSoon) > before
		})
		break
	}
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins, want the first one only", logins)
	}
}

// Where Vault does not answer the question it is asked again after a minute, with the same token; what was known meanwhile stays.
func TestSecretIDIsLookedUpAgain(t *testing.T) {
	t.Parallel()
	l := newEndingLab(t, time.Hour, 7*24*time.Hour)
	l.Proxy.Answer("/secret-id/lookup", http.StatusInternalServerError, "for a test")
	v := l.Vault()
	kv := l.KV(v)
	asked := time.Now()
	for range 3 {
		l.MustPoll(kv, never)
	}
	if n := vaulttest.Count(l.Proxy.Requests(), lookup); n != 1 || !v.SecretIDEnds().IsZero() {
		t.Errorf("%d lookups, want 1; it ends %v", n, v.SecretIDEnds())
	}
	l.Proxy.Forward()
	l.Eventually(func() bool { l.MustPoll(kv, never); return !v.SecretIDEnds().IsZero() })
	if waited := time.Since(asked); waited < 50*time.Second {
		t.Errorf("asked again after %v", waited)
	}
	requests := l.Proxy.Requests()
	if logins, n := vaulttest.Count(requests, vaulttest.Request.Login), vaulttest.Count(requests, lookup); logins != 0 || n != 1 {
		t.Errorf("%d logins and %d lookups, want one lookup", logins, n)
	}
	if n := strings.Count(l.Log.String(), endsSoon); n != 1 {
		t.Errorf("%d warnings, want 1: %s", n, l.Log)
	}
	// Another login, whose lookup fails: the end of that secret-id is still known.
	l.Proxy.Answer("/secret-id/lookup", http.StatusInternalServerError, "for a test")
	l.Server.MustRevokeRoleTokens(l.RoleID)
	l.pollUntilRead(v, kv)
	if logins := l.Logins(); logins != 1 || v.SecretIDEnds().IsZero() {
		t.Errorf("%d logins, want 1; it ends %v", logins, v.SecretIDEnds())
	}
}

// Where the policy does not allow it nothing is said, and nothing asked again with that token.
func TestSecretIDThatMayNotBeLookedUp(t *testing.T) {
	t.Parallel()
	l := newEndingLab(t, time.Hour, 7*24*time.Hour)
	l.Server.MustSetPolicy(l.RoleID, l.Server.ReadPolicy(path))
	v := l.Vault()
	kv := l.KV(v)
	for range 5 {
		l.MustPoll(kv, always)
	}
	if err := l.Log.Await(t.Context(), "end is not known"); err != nil {
		t.Fatal(err)
	}
	l.MustPoll(kv, always)
	if n := vaulttest.Count(l.Proxy.Requests(), lookup); n != 1 {
		t.Errorf("%d lookups, want 1", n)
	}
	for line := range strings.Lines(l.Log.String()) {
		if !strings.Contains(line, "level=DEBUG") {
			t.Errorf("said: %s", line)
		}
	}
	l.Server.MustSetPolicy(l.RoleID, l.Server.ReadPolicy(path)+l.Server.LookupPolicy(l.RoleID))
	l.Server.MustRevokeRoleTokens(l.RoleID)
	l.pollUntilRead(v, kv)
	if err := l.Log.Await(t.Context(), endsSoon); err != nil {
		t.Fatal(err)
	}
}

// A question that is not answered holds up neither polls nor the stop.
func TestLookupThatHangs(t *testing.T) {
	t.Parallel()
	l := newEndingLab(t, time.Hour, 7*24*time.Hour)
	hang := make(chan struct{})
	defer close(hang)
	l.Proxy.Serve("/secret-id/lookup", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	v := l.Vault()
	kv := l.KV(v)
	for range 3 {
		l.MustPoll(kv, always)
	}
	if err := l.Proxy.Await(t.Context(), 1, lookup); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := l.Server.MustRoleTokens(l.RoleID); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
}
