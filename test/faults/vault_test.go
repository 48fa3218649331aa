package faults_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// Vault is down when the daemon starts: what was applied is guarded all the same.
func TestVaultDownAtStart(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Stop()
	w.Proxy.Down()
	w.Blank("prod")
	w.StartDaemon()
	w.OnDisk("prod", secrets["prod"])
	w.Is("prod", "degraded/vault_unreachable", w.Proxy.Address, "is Vault running")
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	if s, err := w.Asker().Status(w.Ctx); err != nil || s.Vault.Reachable || world.One(s, "prod").AppliedVersion != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	_, second := w.NewSecret("prod")
	if err := w.Proxy.Up(); err != nil {
		t.Fatal(err)
	}
	w.Signal(syscall.SIGUSR1)
	w.InSync(2)
	w.Holds("prod", second)
}

// While Vault does not answer as it should, what is applied is kept and guarded; when it does, the daemon goes on.
func TestVaultTrouble(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		own   bool // a Vault of its own
		spoil func(*world.World)
		mend  func(*world.World)
		says  []string
		why   string // empty: vault_unreachable
	}{
		{"cut off", false, func(w *world.World) { w.Proxy.Down() }, func(w *world.World) { w.Must(w.Proxy.Up()) }, []string{"refused"}, ""},
		{"sealed", true, func(w *world.World) { w.Must(w.Vault.Seal(w.Ctx)) }, func(w *world.World) { w.Must(w.Vault.Unseal(w.Ctx)) }, []string{"sealed", "unseal it"}, "vault_sealed"},
		{"403 by policy", false,
			func(w *world.World) {
				w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, `path "none" { capabilities = ["read"] }`))
			},
			func(w *world.World) {
				w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, w.Vault.ReadPolicy(w.SecretPath("+"))))
			}, []string{"permission denied", "policy"}, "vault_denied"},
		{"429", false, answers(429, `{"errors":["rate limit"]}`), forwards, []string{"429"}, ""},
		{"standby", false, answers(473, `{}`), forwards, []string{"473"}, ""},
		{"500", false, answers(500, `{"errors":["internal error"]}`), forwards, []string{"500"}, ""},
		{"502 page", false, answers(502, `<html>Bad Gateway p8e-`+strings.Repeat("s", 32)+`</html>`), forwards, []string{"502"}, ""},
		{"login page", false, answers(200, `<html>Please log in</html>`), forwards, []string{"vault.address"}, ""},
		{"another's JSON", false, answers(200, `{"data": null}`), forwards, []string{"KV version 2"}, ""},
		{"no data", false, answers(200, `{}`), forwards, []string{"KV version 2"}, ""},
		{"version of text", false, answers(200, `{"data": {"current_version": "7"}}`), forwards, []string{"vault.address"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var options container.Options
			if c.own {
				own, err := vaulttest.Launch(t.Context(), os.Stderr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { own.Close() })
				options.Vault = own
			}
			w, secrets := world.Started(t, options)
			c.spoil(w)
			w.Signal(syscall.SIGUSR1)
			w.Is("prod", "degraded/"+firstOf(c.why, "vault_unreachable"), c.says...)
			w.Blank("prod")
			w.OnDisk("prod", secrets["prod"])
			w.Is("prod", "degraded")
			w.Ran(1, "end", "set")
			if _, _, status := w.RunCommand("sync"); status != 1 {
				t.Errorf("sync ended with %d", status)
			}
			c.mend(w)
			_, second := w.NewSecret("prod")
			w.Signal(syscall.SIGUSR1)
			w.InSync(2)
			w.Holds("prod", second)
		})
	}
}

func answers(status int, body string) func(*world.World) {
	return func(w *world.World) { w.Proxy.AnswerBody("/v1/"+w.Vault.Mount, status, body) }
}

func forwards(w *world.World) { w.Proxy.Forward() }

// A Vault that accepts connections and never answers holds up nothing but its own polls.
func TestHangingVaultDelaysNoRevert(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	letGo := w.Proxy.Hang()
	w.Proxy.Requests()
	w.Must(w.Proxy.Await(w.Ctx, 1, func(vaulttest.Request) bool { return true }))
	for i := range 5 {
		w.Blank("prod")
		w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == i+1 })
	}
	w.Holds("prod", secrets["prod"])
	_, second := w.NewSecret("prod")
	letGo()
	w.InSync(2)
	w.Holds("prod", second)
}
