package faults_test

import (
	"net/http"
	"os"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// What people do to Vault itself: it is sealed, a mount is moved, the login's mount is moved, a policy and all tokens go. Each is
// undone, and each happens to a daemon that runs and to one that starts.
func TestOperatorsOfVault(t *testing.T) {
	t.Parallel()
	own, err := vaulttest.Launch(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	w, secrets := world.Started(t, container.Options{Vault: own})
	secret, version := secrets["prod"], 1
	none := `path "none" { capabilities = ["read"] }`
	revoke := func() {
		w.Succeeds("its tokens are revoked", func() error { return own.RevokeRoleTokens(w.Ctx, w.RoleID) })
	}
	for _, c := range []struct {
		name         string
		spoil, mend  func()
		state, start string // of a daemon that runs, of one that starts
		says, told   []string
	}{
		{"sealed", func() { w.Must(own.Seal(w.Ctx)) }, func() { w.Must(own.Unseal(w.Ctx)) },
			"degraded", "degraded", []string{"sealed", "unseal it"}, []string{"sealed", "unseal it"}},
		{"mount moved", func() { moved(w, own.Mount, "elsewhere") }, func() { moved(w, "elsewhere", own.Mount) },
			"blocked", "blocked", []string{"no secret at " + own.Mount, "mount and path"}, []string{"no secret at " + own.Mount}},
		{"login moved", func() { moved(w, "auth/"+own.AuthMount, "auth/elsewhere"); revoke() },
			func() { moved(w, "auth/elsewhere", "auth/"+own.AuthMount) },
			"degraded", "degraded", []string{"login at auth/" + own.AuthMount}, []string{"login at auth/" + own.AuthMount}},
		{"policy and tokens gone", func() { w.Must(own.SetPolicy(w.Ctx, w.RoleID, none)); revoke() },
			func() { w.Must(own.SetPolicy(w.Ctx, w.RoleID, own.ReadPolicy(w.SecretPath("+")))) },
			"degraded", "degraded", []string{"permission denied", "policy that allows to read"}, []string{"policy that allows to read"}},
	} {
		for _, starting := range []bool{false, true} {
			name := c.name + map[bool]string{false: ", running", true: ", starting"}[starting]
			ok := t.Run(name, func(t *testing.T) {
				w.In(t)
				state, says := c.state, c.says
				if starting {
					state, says = c.start, c.told
					w.Stop()
				}
				c.spoil()
				if starting {
					w.StartDaemon()
				}
				w.Signal(syscall.SIGUSR1)
				w.Is("prod", state, says...)
				keepsAndGuards(w, secret)
				c.mend()
				version, secret = w.NewSecret("prod")
				w.Signal(syscall.SIGUSR1)
				w.InSync(version)
				w.Holds("prod", secret)
			})
			w.In(t)
			if !ok {
				return
			}
		}
	}
	w.Ran(version, "end", "set")
}

// moved moves a mount and returns when it is there.
func moved(w *world.World, from, to string) {
	w.T.Helper()
	var answer struct {
		Data struct {
			MigrationID string `json:"migration_id"`
		}
	}
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, "sys/remount", map[string]string{"from": from, "to": to}, &answer))
	w.Eventually("the mount is moved", func() bool {
		var status struct {
			Data struct {
				Info struct{ Status string } `json:"migration_info"`
			}
		}
		w.Must(w.Vault.Call(w.Ctx, http.MethodGet, "sys/remount/status/"+answer.Data.MigrationID, nil, &status))
		return status.Data.Info.Status == "success"
	})
}

// Others have locked the role: the daemon, whose secret-id is right, says so, does not add to it, and goes on when it is unlocked.
func TestRoleIsLocked(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	lockRole(w)
	// A token that was logged in for before serves on.
	version, secret := w.NewSecret("prod")
	w.InSync(version)
	w.Stop()
	w.Blank("prod")
	w.StartDaemon()
	w.OnDisk("prod", secret)
	w.Is("prod", "degraded/login_locked", "login at auth/"+w.Vault.AuthMount, "permission denied", "locked after refused logins")
	keepsAndGuards(w, secret)
	w.Eventually("a right secret-id is not noted as refused, but while it is tried", func() bool {
		_, err := os.Stat(w.StateDir() + "/refused-secret-id.json")
		return err != nil
	})
	unlockRole(w)
	version, secrets["prod"] = w.NewSecret("prod")
	w.Signal(syscall.SIGUSR1)
	w.InSync(version)
	w.Holds("prod", secrets["prod"])
}

// lockRole makes logins that Vault refuses until it locks the role, as a host with a stale secret-id would.
func lockRole(w *world.World) {
	w.T.Helper()
	for range 5 {
		login(w, "00000000-aaaa-bbbb-cccc-000000000000")
	}
	secretID, err := w.Vault.SecretID(w.Ctx, w.RoleID)
	w.Must(err)
	w.Secrets = append(w.Secrets, secretID)
	if err := login(w, secretID); err == nil {
		w.T.Fatal("the role is not locked")
	}
}

func login(w *world.World, secretID string) error {
	return w.Vault.Call(w.Ctx, http.MethodPost, "auth/"+w.Vault.AuthMount+"/login",
		map[string]string{"role_id": w.RoleID, "secret_id": secretID}, nil)
}

func unlockRole(w *world.World) {
	w.T.Helper()
	var mounts struct {
		Data map[string]struct{ Accessor string }
	}
	w.Must(w.Vault.Call(w.Ctx, http.MethodGet, "sys/auth", nil, &mounts))
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, "sys/locked-users/"+mounts.Data[w.Vault.AuthMount+"/"].Accessor+"/unlock/"+w.RoleID, nil, nil))
}
