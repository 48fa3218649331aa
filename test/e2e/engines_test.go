package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

const otherSecret = "p8e-OtherOtherOtherOtherOtherOther12"

// credentialWith is a credential with another secret under a key of its own.
func credentialWith(secret, other string) map[string]any {
	data := container.Credential(secret)
	data["other_secret"] = other
	return data
}

// polledOnce demands of the next polls that each is one request for exactly this path, and nothing else.
func polledOnce(w *world.World, path string) {
	w.T.Helper()
	w.Proxy.Requests()
	if err := w.Proxy.Await(w.Ctx, 3, func(r vaulttest.Request) bool { return r.Path == "/v1/"+path }); err != nil {
		w.T.Fatal(err)
	}
	var last time.Time
	for _, r := range w.Proxy.Requests() {
		if r.Method != http.MethodGet || r.Path != "/v1/"+path {
			w.T.Errorf("idle, and yet %s %s", r.Method, r.Path)
		}
		if gap := r.Time.Sub(last); gap < 500*time.Millisecond {
			w.T.Errorf("polled again after %v", gap)
		}
		last = r.Time
	}
}

// A KV version 1 mount with slashes in its name: rotations are applied, other keys are not, what is deleted or malformed is
// kept and alarmed, and drift is put back all the while. Two instances share the secret and call its fields differently.
func TestKV1(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Instances: []string{"a", "b"}})
	mount, err := w.Vault.MountKV(w.Ctx, "team/a", 1)
	w.Must(err)
	at := mount + "/very/deep/campaign/oauth"
	w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, vaulttest.ReadPolicyAt(at)))
	where := "mount: " + mount + ", path: very/deep/campaign/oauth, kv_version: 1"
	w.Reconfigured(func(o *container.Options) {
		o.Secrets = map[string]string{"a": where, "b": where}
		o.Extra = map[string]string{"b": "fields: {client_secret: other_secret}"}
	})
	write := func(data map[string]any) {
		t.Helper()
		for _, key := range []string{"client_secret", "other_secret"} {
			if secret, ok := data[key].(string); ok {
				w.Secrets = append(w.Secrets, secret)
			}
		}
		w.Must(w.Vault.Call(w.Ctx, http.MethodPost, at, data, nil))
	}
	first, second := "p8e-FirstFirstFirstFirstFirstFirst12", "p8e-SecondSecondSecondSecondSecond12"
	write(credentialWith(first, otherSecret))
	w.StartDaemon()
	w.Is("a", "in_sync")
	w.Is("b", "in_sync")
	w.Holds("a", first)
	w.Holds("b", otherSecret)
	polledOnce(w, at)

	// A rotation of one field: one instance applies, the other records.
	write(credentialWith(second, otherSecret))
	w.OnDisk("a", second)
	before := world.One(w.Pass(), "a").AppliedVersion
	if s := w.Pass(); !s.Is("in_sync") || world.One(s, "b").AppliedVersion != before || before < 1 {
		t.Errorf("%+v", s)
	}
	w.Ran(3, "end", "set")

	// There is no going back: what was written last counts.
	write(credentialWith(first, otherSecret))
	w.OnDisk("a", first)
	w.Pass()
	w.Ran(4, "end", "set")

	// Neither a restart nor a reload is a reason to apply.
	w.HangUp()
	w.Stop()
	w.StartDaemon()
	if s := w.Pass(); !s.Is("in_sync") {
		t.Errorf("%+v", s)
	}

	for name, spoil := range map[string]func(){
		"no secret":                  func() { w.Must(w.Vault.Call(w.Ctx, http.MethodDelete, at, nil, nil)) },
		"client_id is not a string":  func() { data := credentialWith(first, otherSecret); data["client_id"] = 7; write(data) },
		"technical_account_id is em": func() { data := credentialWith(first, otherSecret); data["technical_account_id"] = ""; write(data) },
	} {
		spoil()
		reason := "secret_malformed"
		if name == "no secret" {
			reason = "secret_missing"
		}
		w.Is("a", "blocked/"+reason, name)
		w.Is("b", "blocked/"+reason, name)
		w.Blank("a")
		w.OnDisk("a", first)
		write(credentialWith(first, otherSecret))
		w.Is("a", "in_sync")
		w.Is("b", "in_sync")
	}
	w.Ran(4, "end", "set")
	w.Proxy.Down()
	w.Blank("b")
	w.OnDisk("b", otherSecret)
	w.Must(w.Proxy.Up())
	w.Signal(hurry)
	write(credentialWith(second, otherSecret))
	w.OnDisk("a", second)
	w.Is("a", "in_sync")
	if n := strings.Count(w.Log(), `msg="secret refused, keeping the applied credential" instance=a `); n != 3 {
		t.Errorf("three refusals were told %d times\n%s", n, w.Log())
	}
}

// One whose fields are not in the shared secret is blocked; the other goes on.
func TestSharedSecretWithOtherFields(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Instances: []string{"a", "b"}})
	w.Reconfigured(func(o *container.Options) {
		o.Secrets = map[string]string{"b": "mount: " + w.Vault.Mount + ", path: " + w.SecretPath("a")}
		o.Extra = map[string]string{"b": "fields: {client_secret: other_secret}"}
	})
	first := "p8e-FirstFirstFirstFirstFirstFirst12"
	w.Secrets = append(w.Secrets, otherSecret)
	w.WriteSecret("a", credentialWith(first, otherSecret))
	w.StartDaemon()
	w.InSync(1)
	w.Holds("a", first)
	w.Holds("b", otherSecret)
	if n := vaulttest.Count(w.Proxy.Requests(), vaulttest.Request.DataRead); n != 1 {
		t.Errorf("the secret was read %d times for two instances", n)
	}
	w.Idle(w.SecretPath("a"))

	_, second := w.NewSecret("a") // without the other key
	w.OnDisk("a", second)
	w.Is("b", "blocked/secret_malformed", "client_secret", "other_secret")
	w.Is("a", "in_sync")
	w.Holds("b", otherSecret)
	polledOnce(w, w.Vault.Mount+"/metadata/"+w.SecretPath("a"))
	stdout, _, status := w.RunCommand("diff")
	if status != 3 || strings.Contains(stdout, "a: ") {
		t.Errorf("diff ends with %d: %s", status, stdout)
	}
	world.Says(t, stdout, "b: the secret is refused", "other_secret")
	// Its names are corrected: what was refused is looked at anew.
	w.Reconfigured(func(o *container.Options) { o.Extra = nil })
	w.HangUp()
	w.InSync(2)
	w.Holds("b", second)
}
