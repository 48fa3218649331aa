package sources_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources"
	"campaign-credsync/sources/vaulttest"
)

// Tokens that may be used a few times only: every poll is answered, nothing is asked with one that is used up, nothing that need
// not be is asked, and it is said once.
func TestTokensForAFewUses(t *testing.T) {
	for uses := 1; uses <= 3; uses++ {
		t.Run(fmt.Sprint(uses), func(t *testing.T) {
			t.Parallel()
			l := newEndingLab(t, time.Hour, 7*24*time.Hour)
			l.server.MustSetRole(l.roleID, map[string]any{"token_num_uses": uses})
			v := l.vault()
			kv, other := l.kv(v), l.kv(v)
			first := l.mustPoll(kv, always)
			l.picked(first)
			for range 3 {
				l.mustPoll(kv, never)
				l.mustPoll(other, always)
			}
			l.server.MustWrite(path, oauth("client_id", "another"))
			if c := l.picked(l.mustPoll(kv, always)); c.ClientID != "another" {
				t.Errorf("the credential is still that of %s", c.ClientID)
			}
			l.together(v, 4)
			if err := v.Close(t.Context()); err != nil {
				t.Error(err)
			}
			requests := l.proxy.Requests()
			reads := vaulttest.Count(requests, func(r vaulttest.Request) bool { return r.Method == http.MethodGet })
			logins := vaulttest.Count(requests, vaulttest.Request.Login)
			if want := (reads + uses - 1) / uses; logins != want {
				t.Errorf("%d logins for %d reads with %d uses each, want %d", logins, reads, uses, want)
			}
			if extra := len(requests) - reads - logins; extra > 1 { // the revocation of what is left
				t.Errorf("%d requests besides reads and logins: %+v", extra, requests)
			}
			// Vault ends what is used up a moment later, and a listing fails meanwhile.
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
				left, err := l.server.RoleTokens(t.Context(), l.roleID)
				if err == nil && len(left) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("after a minute there are %d tokens, %v", len(left), err)
				}
			}
			if n := strings.Count(l.log.String(), "token_num_uses"); n != 1 {
				t.Errorf("told %d times: %s", n, l.log)
			}
		})
	}
}

// together polls that many paths at once, each of which must be answered.
func (l *lab) together(v *sources.Vault, paths int) {
	l.t.Helper()
	for _, err := range l.pollEach(v, paths) {
		if err != nil {
			l.t.Error(err)
		}
	}
}

// Events are not subscribed to with such a token: it would end with a poll, and the subscription with it.
func TestNoEventsForAFewUses(t *testing.T) {
	t.Parallel()
	p := pushLabOn(newLabWith(t, (*vaulttest.Server).PushPolicy, time.Hour))
	p.server.MustSetRole(p.roleID, map[string]any{"token_num_uses": 1})
	p.subscribe(path)
	p.logged("token_num_uses")
	for range 3 {
		p.tell[path]()
		p.await(path, 1)
	}
	for _, r := range p.proxy.Requests() {
		if !r.Login() && !strings.Contains(r.Path, "/metadata/") {
			t.Errorf("%s %s", r.Method, r.Path)
		}
	}
	if n := p.told(); n != 1 {
		t.Errorf("%d lines at info or above, want one:\n%s", n, p.log)
	}
	// Told once more when they are for any number.
	p.server.MustSetRole(p.roleID, map[string]any{"token_num_uses": 0})
	p.tell[path]()
	p.tell[path]()
	p.logged(toldNotOffered)
}

// A batch token cannot be revoked: it is not tried, and nobody is told.
func TestBatchToken(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.server.MustSetRole(l.roleID, map[string]any{"token_type": "batch"})
	v := l.vault()
	l.mustPoll(l.kv(v), always)
	if err := v.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := vaulttest.Count(l.proxy.Requests(), func(r vaulttest.Request) bool { return strings.Contains(r.Path, "revoke") }); n != 0 {
		t.Errorf("%d times tried to revoke it", n)
	}
}
