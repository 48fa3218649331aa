package e2e_test

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/sources/vaulttest"
	"campaign-credsync/test/container"
)

func mkfifo(path string) error { return unix.Mkfifo(path, 0o640) }

// idle demands of the next polls that each is one light read of each secret, and nothing else.
func (w *world) idle(paths ...string) {
	w.t.Helper()
	const polls = 3
	w.Proxy.Requests()
	for _, path := range paths {
		if err := w.Proxy.Await(w.ctx, polls, func(r vaulttest.Request) bool { return strings.HasSuffix(r.Path, path) }); err != nil {
			w.t.Fatal(err)
		}
	}
	seen := map[string][]time.Time{}
	for _, r := range w.Proxy.Requests() {
		path, light := strings.CutPrefix(r.Path, "/v1/"+w.Vault.Mount+"/metadata/")
		if r.Method != http.MethodGet || !light {
			w.t.Errorf("idle, and yet %s %s", r.Method, r.Path)
		}
		seen[path] = append(seen[path], r.Time)
	}
	for path, times := range seen {
		for i := range len(times) - 1 {
			if gap := times[i+1].Sub(times[i]); gap < 500*time.Millisecond {
				w.t.Errorf("%s was polled again after %v", path, gap)
			}
		}
	}
}

// In sync and idle: one light read a poll, and nothing is written anywhere.
func TestIdleIsQuiet(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{Settings: "log: {level: info, format: text}"})
	w.pass()
	log, before := w.log(), w.snapshot()
	w.idle(w.SecretPath("prod"))
	if after := w.snapshot(); after != before {
		t.Errorf("files changed:\n%s\nthey were\n%s", after, before)
	}
	if now := w.log(); now != log {
		t.Errorf("the log goes on: %s", now[len(log):])
	}
}

// Vault is down when the daemon starts: what was applied is guarded all the same.
func TestVaultDownAtStart(t *testing.T) {
	t.Parallel()
	w, secrets := started(t, container.Options{})
	w.stop()
	w.Proxy.Down()
	w.blank("prod")
	w.start()
	w.onDisk("prod", secrets["prod"])
	w.is("prod", "degraded", w.Proxy.Address, "is Vault running")
	w.blank("prod")
	w.onDisk("prod", secrets["prod"])
	if s, err := w.Asker().Status(w.ctx); err != nil || s.Vault.Reachable || one(s, "prod").AppliedVersion != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	_, second := w.rotate("prod")
	if err := w.Proxy.Up(); err != nil {
		t.Fatal(err)
	}
	w.signal(syscall.SIGUSR1)
	w.inSync(2)
	w.holds("prod", second)
}

// While Vault does not answer as it should, what is applied is kept and guarded; when it does, the daemon goes on.
func TestVaultTrouble(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		own   bool // a Vault of its own
		spoil func(*world)
		mend  func(*world)
		says  []string
	}{
		{"cut off", false, func(w *world) { w.Proxy.Down() }, func(w *world) { w.must(w.Proxy.Up()) }, []string{"refused"}},
		{"sealed", true, func(w *world) { w.must(w.Vault.Seal(w.ctx)) }, func(w *world) { w.must(w.Vault.Unseal(w.ctx)) }, []string{"sealed", "unseal it"}},
		{"403 by policy", false,
			func(w *world) { w.must(w.Vault.SetPolicy(w.ctx, w.RoleID, `path "none" { capabilities = ["read"] }`)) },
			func(w *world) {
				w.must(w.Vault.SetPolicy(w.ctx, w.RoleID, w.Vault.ReadPolicy(w.SecretPath("+"))))
			}, []string{"permission denied", "policy"}},
		{"429", false, answers(429, `{"errors":["rate limit"]}`), forwards, []string{"429"}},
		{"standby", false, answers(473, `{}`), forwards, []string{"473"}},
		{"500", false, answers(500, `{"errors":["internal error"]}`), forwards, []string{"500"}},
		{"502 page", false, answers(502, `<html>Bad Gateway p8e-`+strings.Repeat("s", 32)+`</html>`), forwards, []string{"502"}},
		{"login page", false, answers(200, `<html>Please log in</html>`), forwards, []string{"vault.address"}},
		{"another's JSON", false, answers(200, `{"data": null}`), forwards, []string{"KV version 2"}},
		{"no data", false, answers(200, `{}`), forwards, []string{"KV version 2"}},
		{"version of text", false, answers(200, `{"data": {"current_version": "7"}}`), forwards, []string{"vault.address"}},
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
			w, secrets := started(t, options)
			c.spoil(w)
			w.signal(syscall.SIGUSR1)
			w.is("prod", "degraded", c.says...)
			w.blank("prod")
			w.onDisk("prod", secrets["prod"])
			w.is("prod", "degraded")
			w.ran(1, "end", "set")
			if _, _, status := w.command("sync"); status != 1 {
				t.Errorf("sync ended with %d", status)
			}
			c.mend(w)
			_, second := w.rotate("prod")
			w.signal(syscall.SIGUSR1)
			w.inSync(2)
			w.holds("prod", second)
		})
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func answers(status int, body string) func(*world) {
	return func(w *world) { w.Proxy.AnswerBody("/v1/"+w.Vault.Mount, status, body) }
}

func forwards(w *world) { w.Proxy.Forward() }

// A token that is revoked under the daemon, or ends, is replaced by one login.
func TestTokenEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		ttl  time.Duration
		end  func(*world)
	}{
		{"revoked", 0, func(w *world) {
			w.eventually("its tokens are revoked", func() bool { return w.Vault.RevokeRoleTokens(w.ctx, w.RoleID) == nil })
		}},
		{"short-lived", 3 * time.Second, func(*world) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, _ := started(t, container.Options{TokenTTL: c.ttl})
			if c.ttl == 0 {
				w.idle(w.SecretPath("prod")) // so that the last login is not just now
			}
			c.end(w)
			w.must(w.Proxy.Await(w.ctx, 1, vaulttest.Request.Login))
			_, second := w.rotate("prod")
			w.inSync(2)
			w.holds("prod", second)
			if strings.Contains(w.log(), "level=WARN") {
				t.Errorf("it was worth a warning\n%s", w.log())
			}
			if c.ttl > 0 {
				return
			}
			logins := 0
			for _, r := range w.Proxy.Requests() {
				if r.Login() {
					logins++
				}
			}
			if logins != 1 {
				t.Errorf("%d logins", logins)
			}
		})
	}
}

// A refused secret-id is tried once, whatever comes: polls, restarts, and commands. A new one is picked up at once.
func TestRefusedSecretID(t *testing.T) {
	t.Parallel()
	w, secrets := started(t, container.Options{})
	w.stop()
	good, err := w.Vault.SecretID(w.ctx, w.RoleID)
	w.must(err)
	wrong := "00000000-1111-2222-3333-444444444444"
	w.secrets = append(w.secrets, good, wrong)
	w.must(os.WriteFile(w.SecretID, []byte(wrong+"\n"), 0o600))
	w.Proxy.Requests()
	w.blank("prod")
	w.start()
	w.is("prod", "degraded", w.SecretID, "put a new secret-id there")
	w.onDisk("prod", secrets["prod"])
	for range 4 {
		w.stop()
		w.start()
		w.is("prod", "degraded", w.SecretID)
		w.command("diff")
		w.command("sync", "--dry-run")
	}
	w.logins(1)

	// The role is not locked: others can log in.
	w.must(w.Vault.Call(w.ctx, http.MethodPost, "auth/"+w.Vault.AuthMount+"/login",
		map[string]string{"role_id": w.RoleID, "secret_id": good}, nil))
	_, second := w.rotate("prod")
	w.must(os.WriteFile(w.SecretID, []byte(good+"\n"), 0o600))
	w.inSync(2)
	w.holds("prod", second)
	w.logins(2)
}

// logins demands a number of logins since the last call of Requests, which it leaves as they are.
func (w *world) logins(want int) {
	w.t.Helper()
	got := 0
	requests := w.Proxy.Requests()
	for _, r := range requests {
		if r.Login() {
			got++
		}
	}
	if got += w.loggedIn; got != want {
		w.t.Errorf("%d logins, want %d\n%s", got, want, w.log())
	}
	w.loggedIn = got
}

// Commands that are run by hand or by a timer must not lock the role for the fleet.
func TestSyncDoesNotRepeatARefusedLogin(t *testing.T) {
	t.Parallel()
	for _, daemon := range []bool{false, true} {
		name := map[bool]string{false: "alone", true: "through the daemon"}[daemon]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, container.Options{})
			w.rotate("prod")
			wrong := "00000000-1111-2222-3333-444444444444"
			w.secrets = append(w.secrets, wrong)
			w.must(os.WriteFile(w.SecretID, []byte(wrong+"\n"), 0o600))
			if daemon {
				w.start()
				w.is("prod", "degraded", w.SecretID)
			}
			for range 3 {
				if _, _, status := w.command("sync"); status != 1 {
					t.Errorf("sync ended with %d", status)
				}
			}
			w.logins(1)
		})
	}
}

// The file of the secret-id is not there yet when the daemon starts: it says so, and goes on as soon as it is.
func TestSecretIDComesLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{})
	secretID, err := os.ReadFile(w.SecretID)
	w.must(err)
	_, secret := w.rotate("prod")
	w.must(os.Remove(w.SecretID))
	w.start()
	w.is("prod", "degraded", w.SecretID, "put the file there")
	w.must(os.WriteFile(w.SecretID, nil, 0o600))
	w.signal(syscall.SIGUSR1)
	w.is("prod", "degraded", "is empty")
	w.must(os.WriteFile(w.SecretID, secretID, 0o600))
	w.inSync(1)
	w.holds("prod", secret)
	w.logins(1)
}

// A Vault that accepts connections and never answers holds up nothing but its own polls.
func TestHangingVaultDelaysNoRevert(t *testing.T) {
	t.Parallel()
	w, secrets := started(t, container.Options{})
	letGo := w.Proxy.Hang()
	w.Proxy.Requests()
	w.must(w.Proxy.Await(w.ctx, 1, func(vaulttest.Request) bool { return true }))
	for i := range 5 {
		w.blank("prod")
		w.await("the revert", func(s container.Status) bool { return one(s, "prod").RevertedTotal == i+1 })
	}
	w.holds("prod", secrets["prod"])
	_, second := w.rotate("prod")
	letGo()
	w.inSync(2)
	w.holds("prod", second)
}
