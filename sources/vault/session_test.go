package vault_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources/vault"
	"campaign-credsync/test/vaulttest"
)

func TestRevokedTokenIsReplacedWithinOnePoll(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kv, other := l.KV(v), l.KV(v)
	l.MustPoll(kv, always)
	l.MustPoll(other, always)
	l.Server.MustRevokeRoleTokens(l.RoleID)
	l.Proxy.Requests()
	for {
		reading, err := kv.Poll(t.Context(), never)
		if err == nil && reading.Version.Number == 1 {
			break
		}
		// Only the least time between two logins may put it off.
		if err == nil || !strings.Contains(err.Error(), "the last one was just now") {
			t.Fatalf("read %+v, %v", reading, err)
		}
		l.MustNotShow("the error", err.Error())
		time.Sleep(20 * time.Millisecond)
	}
	l.MustPoll(other, never)
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins for two paths, want 1", logins)
	}
}

// Vault says that the token is invalid, so it is replaced also where it never worked.
func TestRevokedTokenThatNeverWorkedIsReplaced(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	l.MustPoll(l.KV(v), always)
	l.Server.MustRevokeRoleTokens(l.RoleID)
	l.MustPoll(l.KV(v), always)
}

// All paths meet the revoked token at the same time, and one of them logs in for all.
func TestRevokedTokenOfManyPaths(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kvs := make([]*vault.KV, 6)
	for i := range kvs {
		kvs[i] = l.KV(v)
		l.MustPoll(kvs[i], always)
	}
	loggedIn := time.Now()
	l.Server.MustRevokeRoleTokens(l.RoleID)
	for time.Since(loggedIn) < 1100*time.Millisecond { // the least time between two logins
		select {
		case <-t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	l.Proxy.Requests()
	letGo := l.Proxy.Hang()
	errs := make(chan error)
	for _, kv := range kvs {
		go func() {
			_, err := kv.Poll(t.Context(), never)
			errs <- err
		}()
	}
	// The others wait for the one connection, and most of them with the token that has ended.
	if err := l.Proxy.Await(t.Context(), 1, func(vaulttest.Request) bool { return true }); err != nil {
		t.Fatal(err)
	}
	letGo()
	for range kvs {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}

func TestOneTokenForAllPathsAtOnce(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	errs := make(chan error)
	for range 8 {
		kv := l.KV(v)
		go func() {
			_, err := kv.Poll(t.Context(), always)
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}

// The token is replaced before it ends: a poll at any time finds a living one, and Close leaves none of them but those
// that were replaced.
func TestTokenIsReplacedBeforeItsEnd(t *testing.T) {
	t.Parallel()
	const ttl = 12 * time.Second
	l := newLabWith(t, (*vaulttest.Server).ReadPolicy, ttl)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	first := v.TokenExpires()
	if left := time.Until(first); left <= 0 || left > ttl {
		t.Errorf("the token ends in %s, want up to %s", left, ttl)
	}
	for v.TokenExpires().Equal(first) {
		if !time.Now().Before(first) {
			t.Fatal("the token was not replaced before its end")
		}
		l.MustPoll(kv, never)
		select {
		case <-t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	if n := vaulttest.Count(l.Proxy.Requests(), func(r vaulttest.Request) bool { return strings.Contains(r.Path, "renew") }); n != 0 {
		t.Errorf("%d renewals", n)
	}
}

func TestCloseRevokesOurToken(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	if n := l.Server.MustRoleTokens(l.RoleID); n != 1 {
		t.Fatalf("%d tokens, want 1", n)
	}
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := l.Server.MustRoleTokens(l.RoleID); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
	l.MustFail(kv, "closed")
	if n := l.Server.MustRoleTokens(l.RoleID); n != 0 {
		t.Error("a poll after Close logs in")
	}
	if err := v.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// Vault locks a role for every host after five refused secret-ids.
func TestWrongSecretIDNeverLocksTheRole(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	right := l.Server.MustSecretID(l.RoleID)
	l.WriteSecretID("00000000-canary-canary-canary-000000000000")
	for restart := range 6 {
		kv := l.KV(l.Vault())
		for range 3 {
			l.MustFail(kv, "refused", l.Config.Auth.SecretIDFile, "SIGHUP", "next login not before")
		}
		if logins, want := l.Logins(), map[bool]int{true: 1}[restart == 0]; logins != want {
			t.Errorf("start %d: %d logins, want %d", restart, logins, want)
		}
	}
	file := filepath.Join(l.Config.StateDir, "refused-secret-id.json")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v", file, info.Mode())
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l.MustNotShow(file, string(content))

	// The role is not locked: a right secret-id works at once, and clears what was noted.
	v := l.Vault()
	kv := l.KV(v)
	l.MustFail(kv, "refused")
	l.WriteSecretID(right)
	l.MustPoll(kv, always)
	if _, err := os.Stat(file); err == nil {
		t.Error("it is still noted as refused")
	}
}

func TestRefusedSecretIDIsTriedAgainOnceOnRetry(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.WriteSecretID("00000000-canary-canary-canary-000000000000")
	v := l.Vault()
	kv := l.KV(v)
	l.MustFail(kv, "refused")
	l.Proxy.Requests()
	v.RetryRefused()
	for range 3 {
		l.MustFail(kv, "refused")
	}
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins after Retry, want 1", logins)
	}
}

func TestRefusedSecretIDIsTriedAgainAfterItsTime(t *testing.T) {
	l := newLab(t)
	l.WriteSecretID("00000000-canary-canary-canary-000000000000")
	l.MustFail(l.KV(l.Vault()), "refused")
	file := filepath.Join(l.Config.StateDir, "refused-secret-id.json")
	var noted map[string]any
	if content, err := os.ReadFile(file); err != nil {
		t.Fatal(err)
	} else if err := json.Unmarshal(content, &noted); err != nil {
		t.Fatal(err)
	}
	until, err := time.Parse(time.RFC3339, noted["until"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if wait := time.Until(until); wait < 50*time.Minute || wait > 70*time.Minute {
		t.Errorf("left alone for %s, want about an hour", wait)
	}
	for _, passed := range []time.Time{time.Now().Add(-time.Second), time.Now().AddDate(10, 0, 0)} {
		noted["until"] = passed // over, or from a clock that was wrong
		content, err := json.Marshal(noted)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		l.Proxy.Requests()
		l.MustFail(l.KV(l.Vault()), "refused")
		if logins := l.Logins(); logins != 1 {
			t.Errorf("until %v: %d logins, want 1", passed, logins)
		}
	}
}

func TestFailedLoginsBackOff(t *testing.T) {
	for _, test := range []struct {
		status int
		words  []string
	}{
		{http.StatusForbidden, []string{"locked"}},
		{http.StatusTooManyRequests, []string{"429"}},
		{http.StatusInternalServerError, []string{"500"}},
		{http.StatusServiceUnavailable, []string{"sealed"}},
	} {
		t.Run(http.StatusText(test.status), func(t *testing.T) {
			l := newLab(t)
			l.Server.MustWrite(path, oauth())
			l.Proxy.Answer("/login", test.status, "for a test")
			v := l.Vault()
			kv := l.KV(v)
			// The wait is random from zero on, so one that passes while we look is possible; many in a row are not.
			const polls = 200
			for range polls {
				l.MustFail(kv, append(test.words, "next login not before", "for a test")...)
			}
			if logins := l.Logins(); logins < 1 || logins > polls/4 {
				t.Errorf("%d logins for %d polls", logins, polls)
			}
			if _, err := os.Stat(filepath.Join(l.Config.StateDir, "refused-secret-id.json")); err == nil {
				t.Error("taken for a refused secret-id")
			}
			l.Proxy.Forward()
			v.RetryRefused()
			l.MustPoll(kv, always)
		})
	}
}

// While the token in use still serves, a login that fails harms nobody.
func TestLoginThatFailsEarlyKeepsTheOldToken(t *testing.T) {
	t.Parallel()
	l := newLabWith(t, (*vaulttest.Server).ReadPolicy, 12*time.Second)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	l.Proxy.Answer("/login", http.StatusInternalServerError, "for a test")
	if err := func() error {
		for l.Proxy.Requests(); ; {
			l.MustPoll(kv, never)
			if vaulttest.Count(l.Proxy.Requests(), vaulttest.Request.Login) > 0 {
				return nil
			}
			select {
			case <-t.Context().Done():
				return t.Context().Err()
			case <-time.After(50 * time.Millisecond):
			}
		}
	}(); err != nil {
		t.Fatal(err)
	}
	l.MustPoll(kv, never)
	if n := strings.Count(l.Log.String(), "using the current token"); n != 1 {
		t.Errorf("%d warnings, want 1: %s", n, l.Log)
	}
}

// Another secret-id is found by the watch of its file, or by a reload, or by both at once: it is one login, by the Vault that serves, and
// the token that it replaces is revoked. A poll that still uses that one goes on with the new one.
func TestAnotherSecretIDIsOneLogin(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kv, other := l.KV(v), l.KV(v)
	l.MustPoll(kv, always)
	l.MustPoll(other, always)
	l.Proxy.Requests()
	l.WriteSecretID(l.Server.MustSecretID(l.RoleID))
	for range 2 { // the watch, and the reload
		v.ResetBackoff()
		if !v.Serves(l.Config) {
			t.Error("a reload would make another Vault, which logs in, too")
		}
		l.MustPoll(kv, never)
		if n := l.Server.MustRoleTokens(l.RoleID); n != 1 {
			t.Errorf("%d tokens live, want 1", n)
		}
	}
	l.MustPoll(other, never)
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}
