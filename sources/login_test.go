package sources_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources"
	"campaign-credsync/sources/vaulttest"
)

func TestRevokedTokenIsReplacedWithinOnePoll(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	v := l.vault()
	kv, other := l.kv(v), l.kv(v)
	l.mustPoll(kv, always)
	l.mustPoll(other, always)
	l.server.MustRevokeRoleTokens(l.roleID)
	l.proxy.Requests()
	for {
		reading, err := kv.Poll(t.Context(), never)
		if err == nil && reading.Version.Number == 1 {
			break
		}
		// Only the least time between two logins may put it off.
		if err == nil || !strings.Contains(err.Error(), "the last one was just now") {
			t.Fatalf("read %+v, %v", reading, err)
		}
		l.mustNotShow("the error", err.Error())
	}
	l.mustPoll(other, never)
	if logins := l.logins(); logins != 1 {
		t.Errorf("%d logins for two paths, want 1", logins)
	}
}

// All paths meet the revoked token at the same time, and one of them logs in for all.
func TestRevokedTokenOfManyPaths(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	v := l.vault()
	kvs := make([]*sources.KV, 6)
	for i := range kvs {
		kvs[i] = l.kv(v)
		l.mustPoll(kvs[i], always)
	}
	loggedIn := time.Now()
	l.server.MustRevokeRoleTokens(l.roleID)
	for time.Since(loggedIn) < 1100*time.Millisecond { // the least time between two logins
		select {
		case <-t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	l.proxy.Requests()
	letGo := l.proxy.Hang()
	errs := make(chan error)
	for _, kv := range kvs {
		go func() {
			_, err := kv.Poll(t.Context(), never)
			errs <- err
		}()
	}
	// The others wait for the one connection, and most of them with the token that has ended.
	if err := l.proxy.Await(t.Context(), 1, func(vaulttest.Request) bool { return true }); err != nil {
		t.Fatal(err)
	}
	letGo()
	for range kvs {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if logins := l.logins(); logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}

func TestOneTokenForAllPathsAtOnce(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	v := l.vault()
	errs := make(chan error)
	for range 8 {
		kv := l.kv(v)
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
	if logins := l.logins(); logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}

// The token is replaced before it ends: a poll at any time finds a living one, and Close leaves none of them but those
// that were replaced.
func TestTokenIsReplacedBeforeItsEnd(t *testing.T) {
	l := newLabWith(t, (*vaulttest.Server).ReadPolicy, 4*time.Second)
	l.server.MustWrite(path, oauth())
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	first := v.TokenExpires()
	if left := time.Until(first); left <= 0 || left > 4*time.Second {
		t.Errorf("the token ends in %s, want up to 4s", left)
	}
	for v.TokenExpires().Equal(first) {
		if !time.Now().Before(first) {
			t.Fatal("the token was not replaced before its end")
		}
		l.mustPoll(kv, never)
		select {
		case <-t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	if n := vaulttest.Count(l.proxy.Requests(), func(r vaulttest.Request) bool { return strings.Contains(r.Path, "renew") }); n != 0 {
		t.Errorf("%d renewals", n)
	}
}

func TestCloseRevokesOurToken(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	if n := l.server.MustRoleTokens(l.roleID); n != 1 {
		t.Fatalf("%d tokens, want 1", n)
	}
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := l.server.MustRoleTokens(l.roleID); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
	l.mustFail(kv, "closed")
	if n := l.server.MustRoleTokens(l.roleID); n != 0 {
		t.Error("a poll after Close logs in")
	}
	if err := v.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// Vault locks a role for every host after five refused secret-ids.
func TestWrongSecretIDNeverLocksTheRole(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	right := l.server.MustSecretID(l.roleID)
	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	for restart := range 6 {
		kv := l.kv(l.vault())
		for range 3 {
			l.mustFail(kv, "refused", l.config.Auth.SecretIDFile, "SIGHUP", "next login not before")
		}
		if logins, want := l.logins(), map[bool]int{true: 1}[restart == 0]; logins != want {
			t.Errorf("start %d: %d logins, want %d", restart, logins, want)
		}
	}
	file := filepath.Join(l.config.StateDir, "refused-secret-id.json")
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
	l.mustNotShow(file, string(content))

	// The role is not locked: a right secret-id works at once, and clears what was noted.
	v := l.vault()
	kv := l.kv(v)
	l.mustFail(kv, "refused")
	l.writeSecretID(right)
	l.mustPoll(kv, always)
	if _, err := os.Stat(file); err == nil {
		t.Error("it is still noted as refused")
	}
}

func TestRefusedSecretIDIsTriedAgainOnceOnRetry(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	v := l.vault()
	kv := l.kv(v)
	l.mustFail(kv, "refused")
	l.proxy.Requests()
	v.Retry()
	for range 3 {
		l.mustFail(kv, "refused")
	}
	if logins := l.logins(); logins != 1 {
		t.Errorf("%d logins after Retry, want 1", logins)
	}
}

func TestRefusedSecretIDIsTriedAgainAfterItsTime(t *testing.T) {
	l := newLab(t)
	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	l.mustFail(l.kv(l.vault()), "refused")
	file := filepath.Join(l.config.StateDir, "refused-secret-id.json")
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
		l.proxy.Requests()
		l.mustFail(l.kv(l.vault()), "refused")
		if logins := l.logins(); logins != 1 {
			t.Errorf("until %v: %d logins, want 1", passed, logins)
		}
	}
}

func TestRefusalThatCannotBeNotedStillHolds(t *testing.T) {
	l := newLab(t)
	l.config.StateDir = filepath.Join(t.TempDir(), "missing")
	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	kv := l.kv(l.vault())
	l.mustFail(kv, "refused", "not remembered across a restart")
	for range 3 {
		l.mustFail(kv, "refused")
	}
	if logins := l.logins(); logins != 1 {
		t.Errorf("%d logins, want 1", logins)
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
			l.server.MustWrite(path, oauth())
			l.proxy.Answer("/login", test.status, "for a test")
			v := l.vault()
			kv := l.kv(v)
			// The wait is random from zero on, so one that passes while we look is possible; many in a row are not.
			const polls = 200
			for range polls {
				l.mustFail(kv, append(test.words, "next login not before", "for a test")...)
			}
			if logins := l.logins(); logins < 1 || logins > polls/4 {
				t.Errorf("%d logins for %d polls", logins, polls)
			}
			if _, err := os.Stat(filepath.Join(l.config.StateDir, "refused-secret-id.json")); err == nil {
				t.Error("taken for a refused secret-id")
			}
			l.proxy.Forward()
			v.Retry()
			l.mustPoll(kv, always)
		})
	}
}

// A 400 that is not Vault's says nothing about the secret-id: plain HTTP on a TLS port, a load balancer.
func TestForeign400IsNoRefusedSecretID(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.proxy.AnswerBody("/login", http.StatusBadRequest, "Client sent an HTTP request to an HTTPS server.\n")
	v := l.vault()
	kv := l.kv(v)
	if err := l.mustFail(kv, "400", "https or http"); strings.Contains(err.Error(), "SIGHUP") {
		t.Errorf("taken for a refused secret-id: %v", err)
	}
	if entries, err := os.ReadDir(l.config.StateDir); err != nil || len(entries) != 0 {
		t.Errorf("noted: %v, %v", entries, err)
	}
	l.proxy.Forward()
	v.Retry()
	l.mustPoll(kv, always)
}

// While the token in use still serves, a login that fails harms nobody.
func TestLoginThatFailsEarlyKeepsTheOldToken(t *testing.T) {
	l := newLabWith(t, (*vaulttest.Server).ReadPolicy, 6*time.Second)
	l.server.MustWrite(path, oauth())
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	l.proxy.Answer("/login", http.StatusInternalServerError, "for a test")
	if err := func() error {
		for l.proxy.Requests(); ; {
			l.mustPoll(kv, never)
			if vaulttest.Count(l.proxy.Requests(), vaulttest.Request.Login) > 0 {
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
	l.mustPoll(kv, never)
	if n := strings.Count(l.log.String(), "still serves"); n != 1 {
		t.Errorf("%d warnings, want 1: %s", n, l.log)
	}
}
