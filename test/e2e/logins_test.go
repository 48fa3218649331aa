package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// What was unwrapped once serves after a kill, however it is kept: sealed, where root runs it; else sealed where systemd does that for
// users, or for the daemon's user only.
func TestWrappedSecretIDSurvivesAKill(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		user int
	}{
		{"root", 0},
		{"another user", 65534},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			world.NeedsRoot(t)
			if _, err := exec.LookPath("systemd-creds"); err != nil && c.user == 0 {
				skip.Unable(t, "systemd-creds is not installed")
			}
			w := world.New(t, container.Options{User: c.user})
			w.Reconfigured(func(o *container.Options) { o.Login = w.AppRole() + ", secret_id_wrapped: true" })
			token := w.Vault.MustWrappedSecretID(w.RoleID, time.Hour)
			w.Secrets = append(w.Secrets, token)
			w.Must(os.WriteFile(w.SecretID, []byte(token+"\n"), 0o600))
			w.NewSecret("prod")
			w.Exits(1, "this command only reads", "diff") // and unwraps nothing
			w.Exits(1, "this command only reads", "sync", "--dry-run")

			w.StartDaemon()
			w.InSync(1)
			w.Kill()
			w.StartDaemon()
			_, second := w.NewSecret("prod")
			w.InSync(2)
			w.Holds("prod", second)
			w.Pass() // all is on record, by which diff goes
			w.Exits(0, "", "diff")
			sealed := strings.Contains(w.Log(), "sealed by systemd-creds")
			if c.user == 0 && !sealed {
				t.Errorf("not sealed\n%s", w.Log())
			}
			if !sealed {
				world.Says(t, w.Log(), "kept in state_dir for this user only")
			}
			unwraps := func(r vaulttest.Request) bool { return r.Path == "/v1/sys/wrapping/unwrap" }
			if n := vaulttest.Count(w.Proxy.Requests(), unwraps); n != 1 {
				t.Errorf("unwrapped %d times\n%s", n, w.Log())
			}
			if n := w.Tokens(); n != 2 {
				t.Errorf("%d tokens are alive, want the one of the killed daemon too", n)
			}
			w.Stop()
			if n := w.Tokens(); n != 1 {
				t.Errorf("%d tokens are alive after a clean stop, want that of the killed daemon only", n)
			}
			secretIDIn(w, sealed)
		})
	}
}

// secretIDIn looks at the file in which the secret-id is kept. One that is not sealed must be nowhere else.
func secretIDIn(w *world.World, sealed bool) {
	w.T.Helper()
	file := filepath.Join(w.StateDir(), "secret-id.key")
	content, err := os.ReadFile(file)
	w.Must(err)
	var kept struct {
		Current struct {
			Key   string `json:"sealed_key"`
			Plain string `json:"secret_id"`
		}
	}
	w.Must(json.Unmarshal(content, &kept))
	if sealed != (kept.Current.Key != "") || sealed != (kept.Current.Plain == "") {
		w.T.Errorf("sealed is %v, want %v", kept.Current.Key != "", sealed)
	}
	if !sealed {
		w.Secrets = append(w.Secrets, kept.Current.Plain)
		w.Must(os.Remove(file)) // the one place where it may be
	}
}

// A role may go by the host's address alone: without secret_id_file the role-id is enough.
func TestAppRoleWithoutSecretID(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	w.Vault.MustSetRole(w.RoleID, map[string]any{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.1/32"})
	w.Must(os.Remove(w.SecretID))
	w.Reconfigured(func(o *container.Options) {
		o.Login = strings.Replace(w.AppRole(), ", secret_id_file: "+w.SecretID, "", 1)
	})
	w.NewSecret("prod")
	w.Exits(0, "bind_secret_id=false", "validate")
	w.StartDaemon()
	w.InSync(1)
	w.Pass() // all is on record, by which diff goes
	w.Exits(0, "", "diff")
	w.Stop()
	if n := w.Tokens(); n != 0 {
		t.Errorf("%d tokens are alive after a clean stop", n)
	}
}

// signed makes a world that logs in with a token that sign makes; mount is where.
func signed(t *testing.T, method string) (w *world.World, file, mount string, sign func(subject string) string) {
	t.Helper()
	w = world.New(t, container.Options{})
	signer := vaulttest.MustSigner(t)
	policy := w.Vault.ReadPolicy(w.SecretPath("prod"))
	var role string
	if method == "jwt" {
		mount, role = w.Vault.MustJWTRole(policy, time.Hour, signer, "campaign")
		sign = func(subject string) string { return signer.Sign(map[string]any{"sub": subject, "aud": "vault"}) }
	} else {
		mount, role = w.Vault.MustKubernetesRole(policy, time.Hour, signer.MustReviewer(t), "prod", "campaign")
		sign = func(subject string) string {
			return signer.ServiceAccount("prod", subject, time.Now().Add(time.Hour))
		}
	}
	file = w.SecretID // which is where a secret may be
	w.Reconfigured(func(o *container.Options) {
		o.Login = fmt.Sprintf("method: %s, mount: %s, role: %s, jwt_file: %s", method, mount, role, file)
	})
	w.NewSecret("prod")
	return w, file, mount, sign
}

// A clean stop revokes the token that was got by a login, whatever its method; a kill leaves it.
func TestStopRevokesAndAKillDoesNot(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"jwt", "kubernetes"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w, file, mount, sign := signed(t, method)
			w.Must(os.WriteFile(file, []byte(sign("campaign")), 0o600))
			w.StartDaemon()
			w.InSync(1)
			w.Kill()
			w.StartDaemon()
			w.InSync(1)
			if n := w.MountTokens(mount); n != 2 {
				t.Errorf("%d tokens are alive, want the one of the killed daemon too", n)
			}
			w.Stop()
			if n := w.MountTokens(mount); n != 1 {
				t.Errorf("%d tokens are alive after a clean stop, want that of the killed daemon only", n)
			}
		})
	}
}

// A token that is refused is told of, with the remedy, and another in the file is picked up at once, also when it is turned
// to by a link, as Kubernetes does.
func TestSignedTokenIsReplaced(t *testing.T) {
	t.Parallel()
	w, file, _, sign := signed(t, "jwt")
	dir := t.TempDir()
	put := func(version, token string) {
		t.Helper()
		w.Secrets = append(w.Secrets, token)
		w.Must(os.Mkdir(filepath.Join(dir, version), 0o700))
		w.Must(os.WriteFile(filepath.Join(dir, version, "token"), []byte(token), 0o600))
		w.Must(os.Symlink(version, filepath.Join(dir, "..tmp")))
		w.Must(os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	}
	put("..1", sign("stranger"))
	w.Must(os.Symlink("..data/token", filepath.Join(dir, "token")))
	w.Reconfigured(func(o *container.Options) {
		o.Login = strings.Replace(o.Login, file, filepath.Join(dir, "token"), 1)
		o.Settings = strings.Replace(o.Settings, "poll: 1s", "poll: 1h", 1)
	})
	w.StartDaemon()
	w.Is("prod", "degraded/login_refused", "login at auth/", filepath.Join(dir, "token"), "another in the file is tried at once")
	put("..2", sign("campaign"))
	w.InSync(1)
}
