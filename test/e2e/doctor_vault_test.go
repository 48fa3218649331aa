package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/ims"
	"campaign-credsync/test/world"
)

// only replaces the policy of the daemon's role by the one for its secrets, and more.
func only(w *world.World, more ...string) {
	w.T.Helper()
	w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, w.Vault.ReadPolicy(w.SecretPath("+"))+strings.Join(more, " ")))
}

func rule(path, capability string) string {
	return fmt.Sprintf(`path "%s" { capabilities = ["%s"] }`, path, capability)
}

func rolePath(w *world.World) string {
	return "auth/" + w.Vault.AuthMount + "/role/" + w.Vault.RoleName(w.RoleID)
}

// A policy that is too narrow or too wide, by the running daemon's login and by doctor's own.
func TestDoctorOfPolicy(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{User: campaignUser})
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	mount, path, role := w.Vault.Mount, w.SecretPath("prod"), rolePath(w)
	for _, daemon := range []bool{true, false} {
		user := uint32(campaignUser)
		if !daemon {
			w.Stop()
			user = 0
		}
		tokens := w.Tokens()
		only(w)
		all := doctor(w, user)
		all.must(t, "policy", "ok")
		all.must(t, "login", "ok", map[bool]string{true: "the daemon's login", false: "doctor's own login"}[daemon])
		all.must(t, "secret", "ok", "version 1")
		all.must(t, "clock", "ok")
		all.must(t, "secret_id", "unseen", "secret-id/lookup", `capabilities = ["update"]`)
		all.must(t, "role_shared", "unseen", "vault list "+role)

		only(w, rule(role+"/secret-id/lookup", "update"), rule(role+"/secret-id", "list"))
		all = doctor(w, user)
		all.must(t, "secret_id", "warning", "never ends", "secret_id_ttl")
		all.must(t, "role_shared", "ok", "one secret-id")

		only(w, rule(mount+"/data/"+path, "update"), rule(mount+"/metadata/*", "list"), rule(mount+"/destroy/"+path, "update"), rule(mount+"/data/*", "read"))
		all = doctor(w, user)
		all.must(t, "policy", "warning", "may update "+mount+"/data/"+path)
		all.must(t, "policy", "warning", "may update "+mount+"/destroy/"+path)
		all.must(t, "policy", "warning", "may list "+mount+"/metadata/")
		all.must(t, "policy", "warning", "may read "+mount+"/data/", "/any-other-secret")

		w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, rule(mount+"/data/"+path, "read")))
		all = doctor(w, user)
		all.must(t, "policy", "warning", "may not read "+mount+"/metadata/"+path, "each poll reads the secret itself")
		all.must(t, "secret", "ok")

		w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, rule(mount+"/metadata/"+path, "read")))
		all = doctor(w, user)
		all.must(t, "policy", "error", "may not read "+mount+"/data/"+path, `capabilities = ["read"]`)
		all.must(t, "secret", "error", "permission denied")

		// Without the policy "default" nobody can tell what it may do, and all else is still seen.
		w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, w.Vault.ReadPolicy(path)+rule("sys/capabilities-self", "deny")))
		all = doctor(w, user)
		all.must(t, "policy", "unseen", "sys/capabilities-self")
		all.must(t, "secret", "ok")
		only(w)
		if now := w.Tokens(); !daemon && now != tokens {
			t.Errorf("%d tokens of doctor's are left", now-tokens)
		}
	}
	if printed := w.Printed.String(); strings.Contains(printed, secret) || strings.Contains(printed, w.RoleID) {
		t.Error("a secret or the role-id shows")
	}
}

// What Vault has is odd: a secret of an unusual shape, one that is not there, a secret-id that ends, a role of several hosts, another
// clock, a network without TLS.
func TestDoctorOfVault(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{User: campaignUser})
	doctor(w, 0).must(t, "secret", "error", "no secret at", "Write the secret")
	odd := container.Credential("an-odd-secret-of-31-characters!")
	odd["ims_org_id"], odd["client_id"], odd["technical_account_id"] = "Example@AdobeOrg", "campaign_prod", "someone@example.com"
	w.WriteSecret("prod", odd)
	doctor(w, 0).must(t, "secret", "warning", "version 1: ims_org_id, client_id, technical_account_id, client_secret of an unusual shape")
	w.WriteSecret("prod", map[string]any{"client_secret": "no-other-field-is-here"})
	doctor(w, 0).must(t, "secret", "error", "ims_org_id is missing")
	w.NewSecret("prod")
	doctor(w, 0).must(t, "secret", "ok", "version 3, of the usual shape")

	role := rolePath(w)
	set := func(name string, value any) {
		w.Must(w.Vault.Call(w.Ctx, http.MethodPost, role, map[string]any{name: value}, nil))
	}
	another := func(addresses string) {
		var answer struct {
			Data struct {
				SecretID string `json:"secret_id"`
			}
		}
		w.Must(w.Vault.Call(w.Ctx, http.MethodPost, role+"/secret-id", map[string]any{"cidr_list": addresses}, &answer))
		w.Secrets = append(w.Secrets, answer.Data.SecretID)
		w.Must(os.WriteFile(w.SecretID, []byte(answer.Data.SecretID), 0o600))
		w.Must(os.Chown(w.SecretID, campaignUser, campaignUser))
	}
	only(w, rule(role+"/secret-id/lookup", "update"))
	set("secret_id_ttl", "100h")
	another("127.0.0.1/32")
	all := doctor(w, 0)
	all.must(t, "secret_id", "warning", "the secret-id ends 20", "vault write -f", w.SecretID)
	all.must(t, "role_shared", "ok", "127.0.0.1/32")
	set("secret_id_ttl", "1000h")
	another("")
	doctor(w, 0).must(t, "secret_id", "ok", "the secret-id ends 20")
	only(w, rule(role+"/secret-id", "list"))
	doctor(w, 0).must(t, "role_shared", "warning", "3 secret-ids", "user-lockout-disable=true approle-")

	for offset, want := range map[time.Duration]string{-time.Minute: "warning", time.Minute: "warning", 0: "ok", 10 * time.Second: "ok"} {
		w.Proxy.Serve("/sys/health", func(rw http.ResponseWriter, r *http.Request) { w.Proxy.Pass(clockOff{rw, offset}, r) })
		doctor(w, 0).must(t, "clock", want)
	}
	w.Proxy.Forward()

	doctor(w, 0).must(t, "vault_address", "ok")
	text, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, []byte(strings.Replace(string(text), w.Proxy.Address, "http://192.0.2.1:8200", 1)), 0o600))
	all = doctor(w, 0) // there is nobody
	all.must(t, "vault_address", "warning", "in clear", "https")
	all.must(t, "login", "error", "http://192.0.2.1:8200")
	all.must(t, "policy", "unseen", "no login")
	w.Must(os.WriteFile(w.Config, text, 0o600))
}

// clockOff is a Vault whose clock is wrong.
type clockOff struct {
	http.ResponseWriter
	by time.Duration
}

// WriteHeader tells the time.
func (c clockOff) WriteHeader(status int) {
	c.Header().Set("Date", time.Now().Add(c.by).UTC().Format(http.TimeFormat))
	c.ResponseWriter.WriteHeader(status)
}

// A secret-id that was refused is not tried again, and a wrapped one is not unwrapped: that is for the daemon.
func TestDoctorSparesTheSecretID(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{User: campaignUser})
	w.NewSecret("prod")
	w.Must(os.Mkdir(w.StateDir(), 0o700))
	w.Must(os.Chown(w.StateDir(), campaignUser, campaignUser))
	right, err := os.ReadFile(w.SecretID)
	w.Must(err)
	w.Must(os.WriteFile(w.SecretID, []byte("00000000-0000-0000-0000-000000000000"), 0o600))
	for range 7 { // five would lock the role
		doctor(w, campaignUser).must(t, "login", "error", "secret-id", "new secret-id")
	}
	w.Logins(1)
	w.Must(os.WriteFile(w.SecretID, right, 0o600))
	doctor(w, campaignUser).must(t, "login", "ok")
	if n := w.Tokens(); n != 0 {
		t.Errorf("%d tokens are left", n)
	}

	w.Reconfigured(func(o *container.Options) { o.Login = w.AppRole() + ", secret_id_wrapped: true" })
	w.Must(os.Chown(w.Config, campaignUser, campaignUser))
	w.Proxy.Requests()
	doctor(w, campaignUser).must(t, "login", "error", "was not unwrapped yet")
	for _, r := range w.Proxy.Requests() {
		if strings.Contains(r.Path, "wrapping") || r.Login() {
			t.Errorf("doctor asks for %s", r.Path)
		}
	}
}

// Adobe's login service is reached, or not, without a credential. It is not asked where nothing else would.
func TestDoctorOfIMS(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	adobe := ims.New()
	t.Cleanup(adobe.Close)
	w := world.New(t, container.Options{User: campaignUser, Settings: "\nims: {endpoint: " + adobe.URL + "}"})
	doctor(w, 0).must(t, "ims", "ok", "are off")
	if n := len(adobe.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
	w.Reconfigured(func(o *container.Options) {
		o.Settings = strings.Replace(o.Settings, "ims: {", "ims: {probe: before_apply, ", 1)
	})
	doctor(w, 0).must(t, "ims", "ok", adobe.URL+" answers")
	for _, r := range adobe.Requests() {
		if r.SecretSHA256 != ims.Digest("") || r.Path != "/" {
			t.Errorf("doctor asks %+v", r)
		}
	}
	adobe.Close()
	doctor(w, 0).must(t, "ims", "warning", "refused", "HTTPS_PROXY")
}
