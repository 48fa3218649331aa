package login_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources/vault"
	"campaign-credsync/test/vaulttest"
)

// Tokens that may be used a few times only: every poll is answered, nothing is asked with one that is used up, nothing that need
// not be is asked, and it is said once.
func TestTokensForAFewUses(t *testing.T) {
	for uses := 1; uses <= 3; uses++ {
		t.Run(fmt.Sprint(uses), func(t *testing.T) {
			t.Parallel()
			l := newEndingLab(t, time.Hour, 7*24*time.Hour)
			l.Server.MustSetRole(l.RoleID, map[string]any{"token_num_uses": uses})
			v := l.Vault()
			kv, other := l.KV(v), l.KV(v)
			first := l.MustPoll(kv, always)
			l.Picked(first)
			for range 3 {
				l.MustPoll(kv, never)
				l.MustPoll(other, always)
			}
			l.Server.MustWrite(path, oauth("client_id", "another"))
			if c := l.Picked(l.MustPoll(kv, always)); c.ClientID != "another" {
				t.Errorf("the credential is still that of %s", c.ClientID)
			}
			l.together(v, 4)
			if err := v.Close(t.Context()); err != nil {
				t.Error(err)
			}
			requests := l.Proxy.Requests()
			reads := vaulttest.Count(requests, func(r vaulttest.Request) bool { return r.Method == http.MethodGet })
			logins := vaulttest.Count(requests, vaulttest.Request.Login)
			if want := (reads + uses - 1) / uses; logins != want {
				t.Errorf("%d logins for %d reads with %d uses each, want %d", logins, reads, uses, want)
			}
			if extra := len(requests) - reads - logins; extra > 1 { // the revocation of what is left
				t.Errorf("%d requests besides reads and logins: %+v", extra, requests)
			}
			// Vault ends what is used up a moment later, and a listing fails meanwhile.
			for deadline := time.Now().Add(vaulttest.Patience); ; time.Sleep(20 * time.Millisecond) {
				left, err := l.Server.RoleTokens(t.Context(), l.RoleID)
				if err == nil && len(left) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("after %v there are %d tokens, %v", vaulttest.Patience, len(left), err)
				}
			}
			if n := strings.Count(l.Log.String(), "token_num_uses"); n != 1 {
				t.Errorf("told %d times: %s", n, l.Log)
			}
		})
	}
}

// together polls that many paths at once, each of which must be answered.
func (l *lab) together(v *vault.Vault, paths int) {
	l.T.Helper()
	for _, err := range l.PollEach(v, paths) {
		if err != nil {
			l.T.Error(err)
		}
	}
}

// A batch token cannot be revoked: it is not tried, and nobody is told.
func TestBatchToken(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.Server.MustSetRole(l.RoleID, map[string]any{"token_type": "batch"})
	v := l.Vault()
	l.MustPoll(l.KV(v), always)
	if err := v.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := vaulttest.Count(l.Proxy.Requests(), func(r vaulttest.Request) bool { return strings.Contains(r.Path, "revoke") }); n != 0 {
		t.Errorf("%d times tried to revoke it", n)
	}
}
