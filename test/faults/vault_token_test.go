package faults_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// requestsAMinute is how much Vault may hear of a daemon that it does not let in.
const requestsAMinute = 20

// Each new token is revoked after its first read, or reading stays forbidden: Vault is not flooded with logins and reads, also
// by a daemon that polls every second.
func TestTokensKeepEnding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(*world.World)
		mend  func(*world.World)
		says  string
		why   string
	}{
		{"revoked again and again", func(w *world.World) {
			w.Proxy.Serve("/metadata/", func(rw http.ResponseWriter, r *http.Request) {
				token := r.Header.Get("X-Vault-Token")
				w.Proxy.Pass(rw, r)
				w.Vault.Revoke(w.Ctx, token) // fails for one that is revoked already
			})
		}, func(w *world.World) { w.Proxy.Forward() }, "", ""},
		{"reading stays forbidden", func(w *world.World) {
			w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, `path "none" { capabilities = ["read"] }`))
		}, func(w *world.World) {
			w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, w.Vault.ReadPolicy(w.SecretPath("+"))))
		}, "policy that allows to read", "vault_denied"},
		{"logins forbidden", func(w *world.World) {
			w.Proxy.Answer("/login", 403, "permission denied")
			w.Succeeds("its tokens are revoked", func() error { return w.Vault.RevokeRoleTokens(w.Ctx, w.RoleID) })
		}, func(w *world.World) { w.Proxy.Forward() }, "may not log in", "login_locked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{})
			c.spoil(w)
			w.Proxy.Requests()
			if c.says != "" {
				w.Is("prod", "degraded/"+c.why, c.says, "permission denied")
				keepsAndGuards(w, secrets["prod"])
			}
			// Most requests come at the beginning, before the waits have grown.
			span := 8 * time.Second
			if *full {
				span = 4 * time.Minute
			}
			select {
			case <-time.After(span):
			case <-w.Ctx.Done():
			}
			requests := w.Proxy.Requests()
			if n := busiestMinute(requests); n > requestsAMinute {
				t.Errorf("%d requests in a minute: %v\n%s", n, paths(requests), w.Log())
			}
			w.Blank("prod")
			w.OnDisk("prod", secrets["prod"])
			c.mend(w)
			version, secret := w.NewSecret("prod")
			if _, stderr, status := w.RunCommand("sync"); status != 0 { // by hand, waits are cut short
				t.Errorf("sync ended with %d: %s\n%s", status, stderr, w.Log())
			}
			w.InSync(version)
			w.Holds("prod", secret)
		})
	}
}

// Tokens that are not the usual ones: each poll is answered, and nobody is told of a trouble that is none.
func TestTokensOfAnotherKind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, setting string
		value         any
		warnings      int
	}{
		{"for one use", "token_num_uses", 1, 1},
		{"for two uses", "token_num_uses", 2, 1},
		{"batch", "token_type", "batch", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			w.Vault.MustSetRole(w.RoleID, map[string]any{c.setting: c.value})
			version, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(version)
			w.Holds("prod", secret)
			w.Proxy.Requests()
			w.Must(w.Proxy.Await(w.Ctx, 5, func(r vaulttest.Request) bool { return strings.Contains(r.Path, "/metadata/") }))
			version, secret = w.NewSecret("prod")
			w.InSync(version)
			w.Holds("prod", secret)
			w.Stop()
			if n := strings.Count(w.Log(), "token_num_uses"); n != c.warnings {
				t.Errorf("%d warnings of it, want %d\n%s", n, c.warnings, w.Log())
			}
			for _, trouble := range []string{"source unreachable", "login failed", "token not revoked"} {
				if strings.Contains(w.Log(), trouble) {
					t.Errorf("it says %q\n%s", trouble, w.Log())
				}
			}
		})
	}
}

func busiestMinute(requests []vaulttest.Request) (most int) {
	for i, first := range requests {
		n := 0
		for _, r := range requests[i:] {
			if r.Time.Sub(first.Time) < time.Minute {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func paths(requests []vaulttest.Request) string {
	var all strings.Builder
	for _, r := range requests {
		all.WriteString(r.Time.Format("05.000 ") + r.Path + "; ")
	}
	return all.String()
}
