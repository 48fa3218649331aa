package login_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/vaulttest"
)

const tokenEnds = "the token ends soon"

// A periodic token in a file, which nobody renews, is warned of before its end, once; one that somebody renews is not. We never
// renew or revoke it.
func TestPeriodicTokenInAFile(t *testing.T) {
	t.Parallel()
	for _, renewed := range []bool{false, true} {
		t.Run(fmt.Sprintf("renewed %v", renewed), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.Server.MustWrite(path, oauth())
			const period = 20 * time.Second
			token := l.Server.MustPeriodicToken(l.Server.ReadPolicy(path), period)
			l.UseTokenFile(token)
			v := l.Vault()
			kv := l.KV(v)
			l.MustPoll(kv, never)
			first := v.TokenExpires()
			var failed error
			for failed == nil && (time.Now().Before(first.Add(period/2)) || !renewed) {
				if renewed {
					l.Server.MustRenew(token)
				}
				time.Sleep(50 * time.Millisecond)
				_, failed = kv.Poll(t.Context(), never)
			}
			warned := strings.Count(l.Log.String(), tokenEnds)
			if renewed {
				if failed != nil || warned != 0 || !v.TokenExpires().After(first) {
					t.Errorf("ended %v, warned %d times, ends %v, after %v: %s", failed, warned, v.TokenExpires(), first, l.Log)
				}
			} else if warned != 1 || time.Now().Before(first.Add(-time.Second)) || !strings.Contains(failed.Error(), "write a new token there") {
				t.Errorf("ended %v, warned %d times: %s", failed, warned, l.Log)
			}
			if err := v.Close(t.Context()); err != nil {
				t.Error(err)
			}
			for _, r := range l.Proxy.Requests() {
				if strings.Contains(r.Path, "renew") || strings.Contains(r.Path, "revoke") {
					t.Errorf("%s %s", r.Method, r.Path)
				}
			}
		})
	}
}

// A token that lasts is looked up once.
func TestTokenInAFileIsLookedUpOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.UseTokenFile(l.Server.MustPeriodicToken(l.Server.ReadPolicy(path), time.Hour))
	kv := l.KV(l.Vault())
	for range 5 {
		l.MustPoll(kv, never)
	}
	if n := vaulttest.Count(l.Proxy.Requests(), func(r vaulttest.Request) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.Path, "/lookup-self")
	}); n != 1 {
		t.Errorf("looked up %d times", n)
	}
}
