package faults_test

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// A token that is revoked under the daemon, or ends, is replaced by one login.
func TestTokenEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		ttl  time.Duration
		end  func(*world.World)
	}{
		{"revoked", 0, func(w *world.World) {
			w.Succeeds("its tokens are revoked", func() error { return w.Vault.RevokeRoleTokens(w.Ctx, w.RoleID) })
		}},
		{"short-lived", 3 * time.Second, func(*world.World) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{TokenTTL: c.ttl})
			if c.ttl == 0 {
				w.Idle(w.SecretPath("prod")) // so that the last login is not just now
			}
			c.end(w)
			w.Must(w.Proxy.Await(w.Ctx, 1, vaulttest.Request.Login))
			_, second := w.NewSecret("prod")
			w.InSync(2)
			w.Holds("prod", second)
			if strings.Contains(w.Log(), "level=WARN") {
				t.Errorf("it was worth a warning\n%s", w.Log())
			}
			if c.ttl > 0 {
				return
			}
			if n := logins(w); n != 1 {
				t.Errorf("%d logins", n)
			}
		})
	}
}

// A refused secret-id is tried once, whatever comes: polls, restarts, and commands. A new one is picked up at once.
func TestRefusedSecretID(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Stop()
	good, err := w.Vault.SecretID(w.Ctx, w.RoleID)
	w.Must(err)
	wrong := "00000000-1111-2222-3333-444444444444"
	w.Secrets = append(w.Secrets, good, wrong)
	w.Must(os.WriteFile(w.SecretID, []byte(wrong+"\n"), 0o600))
	w.Proxy.Requests()
	w.Blank("prod")
	w.StartDaemon()
	w.Is("prod", "degraded/login_refused", w.SecretID, "put a new secret-id there")
	w.OnDisk("prod", secrets["prod"])
	for range 4 {
		w.Stop()
		w.StartDaemon()
		w.Is("prod", "degraded", w.SecretID)
		w.RunCommand("diff")
		w.RunCommand("sync", "--dry-run")
	}
	w.Logins(1)

	// The role is not locked: others can log in.
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, "auth/"+w.Vault.AuthMount+"/login",
		map[string]string{"role_id": w.RoleID, "secret_id": good}, nil))
	_, second := w.NewSecret("prod")
	w.Must(os.WriteFile(w.SecretID, []byte(good+"\n"), 0o600))
	w.InSync(2)
	w.Holds("prod", second)
	w.Logins(2)
}

// Commands that are run by hand or by a timer must not lock the role for the fleet.
func TestSyncDoesNotRepeatARefusedLogin(t *testing.T) {
	t.Parallel()
	for _, daemon := range []bool{false, true} {
		name := map[bool]string{false: "alone", true: "through the daemon"}[daemon]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			w.NewSecret("prod")
			wrong := "00000000-1111-2222-3333-444444444444"
			w.Secrets = append(w.Secrets, wrong)
			w.Must(os.WriteFile(w.SecretID, []byte(wrong+"\n"), 0o600))
			if daemon {
				w.StartDaemon()
				w.Is("prod", "degraded", w.SecretID)
			}
			for range 3 {
				if _, _, status := w.RunCommand("sync"); status != 1 {
					t.Errorf("sync ended with %d", status)
				}
			}
			w.Logins(1)
		})
	}
}

// The file of the secret-id is not there yet when the daemon starts: it says so, and goes on as soon as it is.
func TestSecretIDComesLater(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	secretID, err := os.ReadFile(w.SecretID)
	w.Must(err)
	_, secret := w.NewSecret("prod")
	w.Must(os.Remove(w.SecretID))
	w.StartDaemon()
	w.Is("prod", "degraded/login_refused", w.SecretID, "put the file there")
	w.Must(os.WriteFile(w.SecretID, nil, 0o600))
	w.Signal(syscall.SIGUSR1)
	w.Is("prod", "degraded/login_refused", "is empty")
	w.Must(os.WriteFile(w.SecretID, secretID, 0o600))
	w.InSync(1)
	w.Holds("prod", secret)
	w.Logins(1)
}
