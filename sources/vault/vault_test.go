package vault_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault"
	"campaign-credsync/test/vaulttest"
)

func TestConfigurationIsChecked(t *testing.T) {
	role := config.Auth{Method: "approle", RoleID: credential.NewSecret("r"), SecretIDFile: "/nowhere"}
	for name, test := range map[string]struct {
		config vault.Config
		word   string
	}{
		"unparsable":     {vault.Config{Vault: config.Vault{Address: "https://u:canary@vault:%zz", Auth: role}}, "vault.address"},
		"unknown method": {vault.Config{Vault: config.Vault{Address: "https://vault", Auth: config.Auth{Method: "ldap"}}}, "vault.auth.method"},
		"no CA file":     {vault.Config{Vault: config.Vault{Address: "https://vault", CACert: "/nowhere/ca.pem", Auth: role}}, "vault.ca_cert"},
		"no PEM":         {vault.Config{Vault: config.Vault{Address: "https://vault", CACert: "lab_test.go", Auth: role}}, "PEM"},
		"CA no file":     {vault.Config{Vault: config.Vault{Address: "https://vault", CACert: "/dev/zero", Auth: role}}, "not a regular file"},
	} {
		_, err := vault.New(test.config)
		if err == nil || !strings.Contains(err.Error(), test.word) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The caller has merged what it wants of the environment; the client library must not read it a second time.
func TestEnvironmentHasNoSay(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	for name, value := range map[string]string{
		"VAULT_CACERT": "/nowhere", "VAULT_CLIENT_TIMEOUT": "canary", "VAULT_NAMESPACE": "elsewhere", "VAULT_WRAP_TTL": "60",
		"VAULT_HEADERS": "{", "VAULT_RATE_LIMIT": "x", "VAULT_AGENT_ADDR": "http://127.0.0.1:1", "VAULT_PROXY_ADDR": "http://127.0.0.1:1",
		"VAULT_SKIP_VERIFY": "maybe", "VAULT_TOKEN": "hvs.elsewhere",
	} {
		t.Setenv(name, value)
	}
	l.MustPoll(l.KV(l.Vault()), always)
	for _, r := range l.Proxy.Requests() {
		if r.Namespace != "" {
			t.Errorf("namespace %q is sent", r.Namespace)
		}
	}
}

func TestNamespaces(t *testing.T) {
	var namespaces []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		namespaces = append(namespaces, r.Header.Get("X-Vault-Namespace"))
		if strings.HasSuffix(r.URL.Path, "/login") {
			w.Write([]byte(`{"auth":{"client_token":"hvs.test","lease_duration":3600}}`))
			return
		}
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`{"errors":[]}`))
	}))
	defer server.Close()
	l := newLab(t)
	l.Config.Address, l.Config.Namespace, l.Config.Auth.Namespace = server.URL, "team/", "team/"
	l.MustRefuse(l.KV(l.Vault()), 0, "no secret")
	l.Config.Auth.Namespace = "shared/"
	l.MustRefuse(l.KV(l.Vault()), 0, "no secret")
	if got := strings.Join(namespaces, " "); got != "team/ team/ shared/ team/" {
		t.Errorf("namespaces of login, read, login, read: %s", got)
	}
}

func TestTLS(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	authority, stranger := vaulttest.MustAuthority(t), vaulttest.MustAuthority(t)
	serverCert, _, _ := authority.MustIssue(t, "vault.example.com")
	_, clientCert, clientKey := authority.MustIssue(t, "campaign")
	plain := l.Server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{serverCert}})
	mutual := l.Server.ProxyTLS(t, &tls.Config{
		Certificates: []tls.Certificate{serverCert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool,
	})
	old := l.Server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{serverCert}, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	with := func(change func(*vault.Config)) *vault.KV {
		l.Config.Address, l.Config.CACert, l.Config.TLSServerName = plain.Address, authority.File, "vault.example.com"
		l.Config.ClientCert, l.Config.ClientKey = "", ""
		change(&l.Config)
		return l.KV(l.Vault())
	}
	l.MustPoll(with(func(*vault.Config) {}), always)
	l.MustPoll(with(func(c *vault.Config) {
		c.Address, c.ClientCert, c.ClientKey = mutual.Address, clientCert, clientKey
	}), always)
	l.MustFail(with(func(c *vault.Config) { c.Address = mutual.Address }), "vault.client_cert")
	l.MustFail(with(func(c *vault.Config) { c.CACert = stranger.File }), "vault.ca_cert", "authority")
	l.MustFail(with(func(c *vault.Config) { c.CACert = "" }), "vault.ca_cert", "authority")
	l.MustFail(with(func(c *vault.Config) { c.TLSServerName = "" }), "vault.tls_server_name")
	l.MustFail(with(func(c *vault.Config) { c.Address = old.Address }), "protocol version")
	l.MustFail(with(func(c *vault.Config) { c.Address = strings.Replace(l.Proxy.Address, "http:", "https:", 1) }), "does not speak TLS")
	l.MustFail(with(func(c *vault.Config) { c.Address = strings.Replace(plain.Address, "https:", "http:", 1) }), "https or http")
}

// A certificate in a bundle that cannot be read is passed over, where the others suffice.
func TestBundleWithABrokenCertificate(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	authority, stranger := vaulttest.MustAuthority(t), vaulttest.MustAuthority(t)
	serverCert, _, _ := authority.MustIssue(t, "127.0.0.1")
	front := l.Server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{serverCert}})
	whole, err := os.ReadFile(stranger.File)
	if err != nil {
		t.Fatal(err)
	}
	right, err := os.ReadFile(authority.File)
	if err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string]string{
		"cut off":    string(whole[:len(whole)/2]) + "\n",
		"no base64":  strings.Replace(string(whole), "\nM", "\n*", 1),
		"other data": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			l.T = t
			l.Config.Address, l.Config.CACert = front.Address, filepath.Join(t.TempDir(), "bundle.pem")
			put := func(content string) {
				if err := os.WriteFile(l.Config.CACert, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			put(broken)
			if _, err := vault.New(l.Config); err == nil || !strings.Contains(err.Error(), "vault.ca_cert: ") {
				t.Errorf("alone: %v", err)
			}
			put(broken + string(whole))
			l.MustFail(l.KV(l.Vault()), "vault.ca_cert")
			put("a comment\n" + broken + string(right))
			l.MustPoll(l.KV(l.Vault()), always)
			if log := l.Log.String(); !strings.Contains(log, "cannot be read and is not trusted; replace it\" file="+l.Config.CACert+" number=1") {
				t.Errorf("not named: %s", log)
			}
		})
	}
	l.T = t
}

func TestHangingVaultHonoursTheContext(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kv, waiting := l.KV(v), l.KV(v)
	l.Proxy.Hang()
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	for _, one := range []*vault.KV{kv, waiting} {
		go func() {
			_, err := one.Poll(ctx, always)
			errs <- err
		}()
	}
	if err := l.Proxy.Await(t.Context(), 1, vaulttest.Request.Login); err != nil {
		t.Fatal(err)
	}
	cancel()
	for range 2 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	bounded, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := kv.Poll(bounded, always); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestVaultOutOfReachAndBack(t *testing.T) {
	l := newLabOn(t, vaulttest.Start(t), (*vaulttest.Server).ReadPolicy, time.Hour) // it is sealed
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	l.Proxy.Down()
	l.MustFail(kv, "vault at "+l.Proxy.Address, "refused", "vault.address")
	if err := l.Proxy.Up(); err != nil {
		t.Fatal(err)
	}
	l.MustPoll(kv, never)
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins, want 1: an outage does not end a token", logins)
	}
	if !l.Server.External {
		l.Server.MustSeal()
		l.MustFail(kv, "sealed", "unseal")
		l.Server.MustUnseal()
		l.MustPoll(kv, always)
	}
}

func TestAnswersAreExplained(t *testing.T) {
	l := newLab(t)
	// An older client secret looks like any other id, so its look gives it away to nobody.
	const old = "c0ffee00-0000-4000-8000-00000000cafe"
	l.Hidden = append(l.Hidden, old)
	l.Server.MustWrite(path, oauth("client_secret", old))
	kv := l.KV(l.Vault())
	l.MustPoll(kv, always)
	for _, test := range []struct {
		status int
		words  []string
	}{
		{http.StatusTooManyRequests, []string{"429"}},
		{http.StatusPreconditionFailed, []string{"412", "standby"}},
		{473, []string{"standby", "active node"}},
		{http.StatusInternalServerError, []string{"500", "its side"}},
		{http.StatusNotImplemented, []string{"not initialised"}},
		{http.StatusServiceUnavailable, []string{"sealed"}},
		{http.StatusTeapot, []string{"418"}},
	} {
		l.Proxy.Forward()
		// What is between us and Vault may repeat anything, in any dress.
		l.Proxy.Answer("/metadata/", test.status, "told\nby \x1b[31mvault "+secretCanary+" "+strings.Join(l.Hidden, " ")+" hvs.SomebodyElsesToken")
		l.MustFail(kv, append(test.words, "told", "read "+l.Server.Mount+"/metadata/"+path)...)
		l.Proxy.Forward()
		l.Proxy.AnswerBody("/metadata/", test.status, "<html>"+secretCanary+strings.Repeat("x", 100_000))
		if err := l.MustFail(kv, test.words...); strings.Contains(err.Error(), "html") || len(err.Error()) > 1000 {
			t.Errorf("the body is quoted: %.200s", err)
		}
	}
}

func TestAnswersThatAreNotVaults(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	kv := l.KV(l.Vault())
	l.MustPoll(kv, always)
	for body, word := range map[string]string{
		"<html>" + secretCanary:                               "KV version 2",
		`{"data":{"client_secret":"` + secretCanary + `"}}`:   "KV version 2",
		`{"data":{"current_version":"` + secretCanary + `"}}`: "KV version 2",
		`{}`: "KV version 2",
		``:   "KV version 2",
		`{"data":{"current_version":1,"x":"` + strings.Repeat("x", 1<<20) + `"}}`: "larger than 1024 KiB",
		`{"data":{"current_version":7,"versions":{}}}`:                            "newest version",
	} {
		l.Proxy.Forward()
		l.Proxy.AnswerBody("/metadata/", http.StatusOK, body)
		l.MustFail(kv, word)
	}
	// A standby that is behind: the version is known and cannot be read. That must not be remembered as refused.
	l.Proxy.Forward()
	l.Proxy.AnswerBody("/data/", http.StatusNotFound, `{"errors":[]}`)
	l.Server.MustWrite(path, oauth())
	if err := l.MustFail(kv, "asked again later"); strings.Contains(err.Error(), "no secret") {
		t.Errorf("refused: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	standby := func(to func(r *http.Request) string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to(r), http.StatusTemporaryRedirect)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	l.Config.Address = standby(func(r *http.Request) string { return l.Proxy.Address + r.URL.RequestURI() })
	l.MustPoll(l.KV(l.Vault()), always)
	l.Proxy.Requests()
	l.Config.Address = standby(func(r *http.Request) string { return l.Proxy.Address + "/login?next=" + r.URL.Path })
	l.MustFail(l.KV(l.Vault()), "redirects to "+l.Proxy.Address, "not followed")
	if requests := l.Proxy.Requests(); len(requests) != 0 {
		t.Errorf("the redirect was followed: %+v", requests)
	}
}

// What came over TLS is not sent on in clear, though it is Vault that is said to be there.
func TestRedirectsFromTLSToClear(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	authority := vaulttest.MustAuthority(t)
	serverCert, _, _ := authority.MustIssue(t, "127.0.0.1")
	standby := l.Server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{serverCert}})
	l.Config.Address, l.Config.CACert = standby.Address, authority.File
	v := l.Vault()
	kv := l.KV(v)
	for _, part := range []string{"/login", "/metadata/"} {
		standby.Serve(part, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, l.Proxy.Address+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		})
		l.MustFail(kv, "redirects to "+l.Proxy.Address, "not followed")
		standby.Forward()
		v.ResetBackoff()
		l.MustPoll(kv, always)
	}
	if requests := l.Proxy.Requests(); len(requests) != 0 {
		t.Errorf("sent in clear: %+v", requests)
	}
}
