package e2e_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// twin makes a second Vault in which the daemon finds the same mounts and the same login as in its own.
func twin(w *world.World) *vaulttest.Server {
	w.T.Helper()
	second := vaulttest.Start(w.T)
	call := func(method, path string, body any) { w.T.Helper(); w.Must(second.Call(w.Ctx, method, path, body, nil)) }
	call(http.MethodPost, "sys/mounts/"+w.Vault.Mount, map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	call(http.MethodPost, "sys/auth/"+w.Vault.AuthMount, map[string]any{"type": "approle"})
	call(http.MethodPost, "sys/policies/acl/twin", map[string]any{"policy": w.Vault.ReadPolicy(w.SecretPath("+"))})
	role := "auth/" + w.Vault.AuthMount + "/role/twin"
	secretID, err := os.ReadFile(w.SecretID)
	w.Must(err)
	call(http.MethodPost, role, map[string]any{"token_policies": "twin"})
	call(http.MethodPost, role+"/role-id", map[string]any{"role_id": w.RoleID})
	call(http.MethodPost, role+"/custom-secret-id", map[string]any{"secret_id": strings.TrimSpace(string(secretID))})
	second.Mount, second.AuthMount = w.Vault.Mount, w.Vault.AuthMount
	w.Eventually("the mount of the second Vault is ready", func() bool {
		return second.Call(w.Ctx, http.MethodPost, w.Vault.Mount+"/config", map[string]any{}, nil) == nil
	})
	return second
}

// The address changes to another Vault that holds the same secret: nothing is applied, the old one's token is revoked, and
// nothing is asked there any more.
func TestReloadToAnotherVault(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	first, firstVault := w.Proxy, w.Vault
	second := twin(w)
	proxy := second.Proxy(t)
	_, err := second.Write(w.Ctx, w.SecretPath("prod"), container.Credential(secrets["prod"]))
	w.Must(err)
	rewrite(w, first.Address, proxy.Address)
	first.Requests()
	w.HangUp()
	w.Must(proxy.Await(w.Ctx, 1, vaulttest.Request.Login))
	w.InSync(1)
	w.Ran(1, "end", "set")
	w.Ran(1, "end", "reload")
	w.Eventually("the token of the old Vault is revoked", func() bool {
		tokens, err := firstVault.RoleTokens(w.Ctx, w.RoleID)
		return err == nil && len(tokens) == 0
	})
	first.Requests()
	version, err := second.Write(w.Ctx, w.SecretPath("prod"), container.Credential("p8e-TWOtwoTWOtwoTWOtwoTWOtwoTWOtwo12"))
	w.Must(err)
	w.Secrets = append(w.Secrets, "p8e-TWOtwoTWOtwoTWOtwoTWOtwoTWOtwo12")
	w.InSync(version)
	if asked := first.Requests(); len(asked) > 0 {
		t.Errorf("the old Vault is asked: %+v", asked)
	}

	// Back, because the second one hangs. It is told where the token was left, and meanwhile the file is guarded. What the first one
	// holds is older: it is refused.
	letGo := proxy.Hang()
	defer letGo()
	rewrite(w, proxy.Address, first.Address)
	w.HangUp()
	w.Blank("prod")
	w.OnDisk("prod", "p8e-TWOtwoTWOtwoTWOtwoTWOtwoTWOtwo12")
	w.Is("prod", "blocked/secret_rollback", "goes back from version 2")
	w.Eventually("it is told that the token was left", func() bool { return strings.Contains(w.Log(), "token not revoked, it ends by itself") })
	w.Ran(2, "end", "set")
	world.Says(t, w.Log(), `msg="new version holds the same credential, recorded"`)
}

// Certificates of the authority and of the client change, under the same names and under others; a listener that demands the
// client's certificate gets the new one.
func TestReloadCertificates(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	dir := t.TempDir()
	var mu sync.Mutex
	var settings *tls.Config
	var shown []string // common names of clients
	serve := func(authority *vaulttest.Authority) {
		pair, _, _ := authority.MustIssue(t, "127.0.0.1")
		mu.Lock()
		defer mu.Unlock()
		settings = &tls.Config{
			Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool,
			VerifyConnection: func(s tls.ConnectionState) error {
				mu.Lock()
				defer mu.Unlock()
				shown = append(shown, s.PeerCertificates[0].Subject.CommonName)
				return nil
			},
		}
	}
	copyTo := func(from, to string) string {
		data, err := os.ReadFile(from)
		w.Must(err)
		to = filepath.Join(dir, to)
		w.Must(os.WriteFile(to, data, 0o600))
		return to
	}
	install := func(authority *vaulttest.Authority, client, suffix string) (ca, cert, key string) {
		_, certFile, keyFile := authority.MustIssue(t, client)
		return copyTo(authority.File, "ca"+suffix), copyTo(certFile, "cert"+suffix), copyTo(keyFile, "key"+suffix)
	}
	one, two, three := vaulttest.MustAuthority(t), vaulttest.MustAuthority(t), vaulttest.MustAuthority(t)
	serve(one)
	w.Proxy.Close()
	var err error
	w.Proxy, err = vaulttest.NewProxy(w.Vault.Address, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		return settings, nil
	}})
	w.Must(err)
	w.Reconfigured(func(*container.Options) {})
	ca, cert, key := install(one, "client-one", ".pem")
	rewrite(w, "vault:\n", fmt.Sprintf("vault:\n  ca_cert: %s\n  client_cert: %s\n  client_key: %s\n", ca, cert, key))
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	saw := func(client string) {
		t.Helper()
		w.Eventually("the certificate of "+client+" is shown", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(shown) > 0 && shown[len(shown)-1] == client
		})
	}
	saw("client-one")

	// Vault gets another authority: out of reach until the files are replaced and read again.
	serve(two)
	w.Proxy.Down()
	w.Must(w.Proxy.Up())
	w.Is("prod", "degraded/vault_unreachable", "unknown authority")
	install(two, "client-two", ".pem")
	w.HangUp()
	w.InSync(1)
	saw("client-two")

	// The same under other names. A new version comes, too.
	serve(three)
	w.Proxy.Down()
	w.Must(w.Proxy.Up())
	w.Is("prod", "degraded")
	install(three, "client-three", ".new.pem")
	_, second := w.NewSecret("prod")
	for _, name := range []string{"ca", "cert", "key"} {
		rewrite(w, filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".new.pem"))
	}
	w.HangUp()
	w.InSync(2)
	w.Holds("prod", second)
	saw("client-three")
	w.Ran(2, "end", "set")

	// What cannot be used is refused, and the old ones serve on.
	w.Must(os.Remove(filepath.Join(dir, "ca.new.pem")))
	refused(w, "vault.ca_cert", "no such file")
	w.Must(os.WriteFile(filepath.Join(dir, "ca.new.pem"), []byte("nonsense"), 0o600))
	refused(w, "vault.ca_cert", "no certificate")
	_, third := w.NewSecret("prod")
	w.InSync(3)
	w.Holds("prod", third)
}

// The login changes, piece by piece. Each change is one login, nothing is applied anew, and the token that is not needed any more is
// revoked; without a change there is no login at all.
func TestReloadLogin(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	policy := w.Vault.ReadPolicy(w.SecretPath("+"))
	tokensOf := func(roleID string) int {
		tokens, err := w.Vault.RoleTokens(w.Ctx, roleID)
		if err != nil {
			return -1
		}
		return len(tokens)
	}
	reload := func(logins int, roleID string, change ...func()) {
		t.Helper()
		w.Proxy.Requests()
		for _, c := range change {
			c()
		}
		w.HangUp()
		requests := w.Proxy.Requests()
		w.Must(w.Proxy.Await(w.Ctx, 2, func(r vaulttest.Request) bool { return strings.Contains(r.Path, "/metadata/") }))
		w.InSync(1)
		if got := vaulttest.Count(append(requests, w.Proxy.Requests()...), vaulttest.Request.Login); got != logins {
			t.Errorf("%d logins, want %d\n%s", got, logins, w.Log())
		}
		w.Eventually("one token of the role in use is left", func() bool { return tokensOf(roleID) == 1 })
	}
	reload(0, w.RoleID)

	roleID, secretID, err := w.Vault.Role(w.Ctx, policy, 0)
	w.Must(err)
	w.Secrets = append(w.Secrets, secretID)
	rewrite(w, w.RoleID, roleID)
	was := w.SecretID // in a file of its own, as the role before would be tried with it
	w.SecretID = t.TempDir() + "/secret_id"
	w.Must(os.WriteFile(w.SecretID, []byte(secretID), 0o600))
	rewrite(w, "secret_id_file: "+was, "secret_id_file: "+w.SecretID)
	reload(1, roleID)
	w.Must(os.Remove(was))
	w.Eventually("no token of the role that is not used any more is left", func() bool { return tokensOf(w.RoleID) == 0 })
	reload(0, roleID)

	// Another secret-id in the same file, which the watch of that file may find before the reload or after it; then the same one in
	// another file.
	another, err := w.Vault.SecretID(w.Ctx, roleID)
	w.Must(err)
	w.Secrets = append(w.Secrets, another)
	reload(1, roleID, func() { w.Must(os.WriteFile(w.SecretID, []byte(another), 0o600)) })
	another, err = w.Vault.SecretID(w.Ctx, roleID)
	w.Must(err)
	w.Secrets = append(w.Secrets, another)
	reload(1, roleID, func() {
		w.Must(os.WriteFile(w.SecretID, []byte(another), 0o600))
		w.Must(w.Proxy.Await(w.Ctx, 1, vaulttest.Request.Login))
	})
	elsewhere := t.TempDir() + "/secret_id"
	w.Must(os.WriteFile(elsewhere, []byte(another), 0o600))
	rewrite(w, "secret_id_file: "+w.SecretID, "secret_id_file: "+elsewhere)
	reload(1, roleID)

	// Another mount, made so that it accepts the same.
	mount := w.Vault.AuthMount + "-2"
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, "sys/auth/"+mount, map[string]any{"type": "approle"}, nil))
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, "sys/policies/acl/"+mount, map[string]any{"policy": policy}, nil))
	role := "auth/" + mount + "/role/r"
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, role, map[string]any{"token_policies": mount}, nil))
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, role+"/role-id", map[string]any{"role_id": roleID}, nil))
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, role+"/custom-secret-id", map[string]any{"secret_id": another}, nil))
	rewrite(w, "mount: "+w.Vault.AuthMount+",", "mount: "+mount+",")
	w.Proxy.Requests()
	w.HangUp()
	w.Must(w.Proxy.Await(w.Ctx, 1, func(r vaulttest.Request) bool { return r.Path == "/v1/auth/"+mount+"/login" }))
	w.InSync(1)
	w.Eventually("the token of the old mount is revoked", func() bool { return tokensOf(roleID) == 0 })

	// Another method. Its token is not ours, and is left alone by the next reload.
	token, err := w.Vault.NewToken(w.Ctx, policy, time.Hour)
	w.Must(err)
	w.Secrets = append(w.Secrets, token)
	tokenFile := t.TempDir() + "/token"
	w.Must(os.WriteFile(tokenFile, []byte(token), 0o600))
	login := fmt.Sprintf("method: approle, mount: %s, role_id: %s, secret_id_file: %s", mount, roleID, elsewhere)
	rewrite(w, login, "method: token_file, token_file: "+tokenFile)
	w.HangUp()
	w.InSync(1)
	w.NewSecret("prod")
	w.InSync(2)
	rewrite(w, "method: token_file, token_file: "+tokenFile, login)
	w.HangUp()
	w.InSync(2)
	var self struct{ Data map[string]any }
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, "auth/token/lookup", map[string]any{"token": token}, &self))

	// A namespace goes out with every request. This Vault knows none, so that the answer is no.
	rewrite(w, "vault:\n", "vault:\n  namespace: team\n")
	w.Proxy.Requests()
	w.HangUp()
	w.Must(w.Proxy.Await(w.Ctx, 1, func(r vaulttest.Request) bool { return r.Namespace == "team" }))
	w.Ran(2, "end", "set")
	w.Ran(2, "end", "reload")
}
