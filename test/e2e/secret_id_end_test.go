package e2e_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// secretIDOf puts a new secret-id that lives so long into the file.
func secretIDOf(w *world.World, ttl time.Duration) {
	w.T.Helper()
	w.Vault.MustSetRole(w.RoleID, map[string]any{"secret_id_ttl": ttl.String()})
	replaceSecretID(w, w.Vault.MustSecretID(w.RoleID))
}

func replaceSecretID(w *world.World, secretID string) {
	w.T.Helper()
	w.Secrets = append(w.Secrets, secretID)
	fresh := w.SecretID + ".new"
	w.Must(os.WriteFile(fresh, []byte(secretID+"\n"), 0o600))
	w.Must(os.Rename(fresh, w.SecretID))
}

// expiring are the events of that kind.
func expiring(events []world.Event) (found []world.Event) {
	for _, e := range events {
		if e.Kind == "secret_id_expiring" {
			found = append(found, e)
		}
	}
	return found
}

// The end of a secret-id comes near while the daemon runs, and then that of the next one: each is told once, and is a warning, and an alert of
// a real Prometheus, until there is another secret-id in the file, which is used at once.
func TestSecretIDEnds(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	listen := freeAddress(t)
	w.Reconfigured(func(o *container.Options) {
		o.Login = w.AppRole() + ", secret_id_warn: 59m50s"
		o.Settings += "\nlisten: " + listen + "\n" + told(w)
	})
	p := startPrometheus(w, listen)
	const alert = `ALERTS{alertname="CampaignCredsyncSecretIdEnds",instance="host-a",severity="warning"}`
	w.Vault.MustSetPolicy(w.RoleID, w.Vault.ReadPolicy(w.SecretPath("prod"))+w.Vault.LookupPolicy(w.RoleID))
	w.NewSecret("prod")
	for i, ttl := range []time.Duration{time.Hour, 30 * time.Minute} {
		day := func() string { return time.Now().Add(ttl).UTC().Format("2006-01-02") }
		end := day()
		secretIDOf(w, ttl)
		latest := day()
		if w.Running == nil {
			w.StartDaemon()
			w.InSync(1)
		}
		w.Warns("secret_id_ends", false, w.SecretID, "put a new one")
		w.Eventually("the history and the program of notify.exec are told", func() bool {
			input, err := os.ReadFile(w.Path("told"))
			return err == nil && len(expiring(w.EventsIn(string(input)))) == i+1 && len(expiring(w.History())) == i+1
		})
		e := expiring(w.History())[i]
		if !strings.Contains(e.Text, end) { // midnight came meanwhile
			end = latest
		}
		w.Warns("secret_id_ends", false, end)
		if e.Instance != "" || !strings.Contains(e.Text, w.SecretID) || !strings.Contains(e.Text, end) {
			t.Errorf("%+v", e)
		}
		metrics := w.Exits(0, "", "status", "--prometheus")
		world.Says(t, metrics, `campaign_credsync_warning{code="secret_id_ends"} 1`, "\ncampaign_credsync_vault_secret_id_expiry_timestamp_seconds ")
		w.Exits(0, "secret_id_ends", "status")
		p.finds(alert)

		secretIDOf(w, 240*time.Hour)
		w.Warns("secret_id_ends", true)
		p.finds("absent(" + alert + ")")
		world.Says(t, w.Exits(0, "", "status", "--prometheus"), `campaign_credsync_warning{code="secret_id_ends"} 0`)
	}
	w.Logged("level=WARN", "the secret-id ends soon", w.SecretID)
	w.Idle(w.SecretPath("prod"))
	if n := len(expiring(w.History())); n != 2 {
		t.Errorf("told %d times, want 2", n)
	}
}

// A wrong secret-id in the file is said as long as the token still serves; it is tried once, and the right one at once.
func TestWrongSecretIDWhileTheTokenServes(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Proxy.Requests()
	const wrong = "00000000-1111-2222-3333-444444444444"
	right, err := os.ReadFile(w.SecretID)
	w.Must(err)
	replaceSecretID(w, wrong)
	w.Logged("level=ERROR", "login failed, using the current token until it ends", w.SecretID)
	w.Warns("login_failing", false, w.SecretID)
	replaceSecretID(w, strings.TrimSpace(string(right)))
	w.Warns("login_failing", true)
	replaceSecretID(w, wrong)
	w.Warns("login_failing", false, w.SecretID)
	for range 3 {
		w.Pass()
	}
	w.InSync(1)
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.NewSecret("prod")
	w.InSync(2)
	if n := vaulttest.Count(w.Proxy.Requests(), vaulttest.Request.Login); n != 1 {
		t.Errorf("%d logins with a wrong secret-id, want 1\n%s", n, w.Log())
	}
	replaceSecretID(w, w.Vault.MustSecretID(w.RoleID))
	w.Logged("level=INFO", "login succeeded again")
	w.Warns("login_failing", true)
	w.InSync(2)
}
