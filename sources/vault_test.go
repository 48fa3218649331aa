package sources_test

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

	"campaign-credsync/sources"
	"campaign-credsync/sources/vaulttest"
)

func TestConfigurationIsChecked(t *testing.T) {
	role := sources.Auth{Method: "approle", RoleID: "r", SecretIDFile: "/nowhere"}
	for name, test := range map[string]struct {
		config sources.VaultConfig
		word   string
	}{
		"no address":       {sources.VaultConfig{Auth: role}, "vault.address"},
		"no scheme":        {sources.VaultConfig{Address: "vault:8200", Auth: role}, "vault.address"},
		"password":         {sources.VaultConfig{Address: "https://u:canary@vault", Auth: role}, "password"},
		"unparsable":       {sources.VaultConfig{Address: "https://u:canary@vault:%zz", Auth: role}, "vault.address"},
		"no role":          {sources.VaultConfig{Address: "https://vault", Auth: sources.Auth{SecretIDFile: "/x"}}, "role_id"},
		"two roles":        {sources.VaultConfig{Address: "https://vault", Auth: sources.Auth{RoleID: "a", RoleIDFile: "b", SecretIDFile: "/x"}}, "role_id_file"},
		"nothing wrapped":  {sources.VaultConfig{Address: "https://vault", Auth: sources.Auth{RoleID: "a", SecretIDWrapped: true}}, "secret_id_file"},
		"no token file":    {sources.VaultConfig{Address: "https://vault", Auth: sources.Auth{Method: "token_file"}}, "token_file"},
		"unknown method":   {sources.VaultConfig{Address: "https://vault", Auth: sources.Auth{Method: "ldap"}}, "approle, token_file"},
		"no CA file":       {sources.VaultConfig{Address: "https://vault", Auth: role, CACert: "/nowhere/ca.pem"}, "vault.ca_cert"},
		"no PEM":           {sources.VaultConfig{Address: "https://vault", Auth: role, CACert: "vault_test.go"}, "PEM"},
		"CA no file":       {sources.VaultConfig{Address: "https://vault", Auth: role, CACert: "/dev/zero"}, "not a regular file"},
		"certificate only": {sources.VaultConfig{Address: "https://vault", Auth: role, ClientCert: "/x"}, "both or neither"},
		"state, no key":    {sources.VaultConfig{Address: "https://vault", Auth: role, StateDir: "/x"}, "digest key"},
	} {
		_, err := sources.NewVault(test.config)
		if err == nil || !strings.Contains(err.Error(), test.word) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The caller has merged what it wants of the environment; the client library must not read it a second time.
func TestEnvironmentHasNoSay(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	for name, value := range map[string]string{
		"VAULT_CACERT": "/nowhere", "VAULT_CLIENT_TIMEOUT": "canary", "VAULT_NAMESPACE": "elsewhere", "VAULT_WRAP_TTL": "60",
		"VAULT_HEADERS": "{", "VAULT_RATE_LIMIT": "x", "VAULT_AGENT_ADDR": "http://127.0.0.1:1", "VAULT_PROXY_ADDR": "http://127.0.0.1:1",
		"VAULT_SKIP_VERIFY": "maybe", "VAULT_TOKEN": "hvs.elsewhere",
	} {
		t.Setenv(name, value)
	}
	l.mustPoll(l.kv(l.vault()), always)
	for _, r := range l.proxy.Requests() {
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
	l.config.Address, l.config.Namespace = server.URL, "team/"
	l.mustRefuse(l.kv(l.vault()), 0, "no secret")
	l.config.Auth.Namespace = "shared/"
	l.mustRefuse(l.kv(l.vault()), 0, "no secret")
	if got := strings.Join(namespaces, " "); got != "team/ team/ shared/ team/" {
		t.Errorf("namespaces of login, read, login, read: %s", got)
	}
}

func TestTLS(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	authority, stranger := vaulttest.MustAuthority(t), vaulttest.MustAuthority(t)
	serverCert, _, _ := authority.MustIssue(t, "vault.example.com")
	_, clientCert, clientKey := authority.MustIssue(t, "campaign")
	plain := l.server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{serverCert}})
	mutual := l.server.ProxyTLS(t, &tls.Config{
		Certificates: []tls.Certificate{serverCert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool,
	})
	old := l.server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{serverCert}, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	with := func(change func(*sources.VaultConfig)) *sources.KV {
		l.config.Address, l.config.CACert, l.config.TLSServerName = plain.Address, authority.File, "vault.example.com"
		l.config.ClientCert, l.config.ClientKey = "", ""
		change(&l.config)
		return l.kv(l.vault())
	}
	l.mustPoll(with(func(*sources.VaultConfig) {}), always)
	l.mustPoll(with(func(c *sources.VaultConfig) {
		c.Address, c.ClientCert, c.ClientKey = mutual.Address, clientCert, clientKey
	}), always)
	l.mustFail(with(func(c *sources.VaultConfig) { c.Address = mutual.Address }), "vault.client_cert")
	l.mustFail(with(func(c *sources.VaultConfig) { c.CACert = stranger.File }), "vault.ca_cert", "authority")
	l.mustFail(with(func(c *sources.VaultConfig) { c.CACert = "" }), "vault.ca_cert", "authority")
	l.mustFail(with(func(c *sources.VaultConfig) { c.TLSServerName = "" }), "vault.tls_server_name")
	l.mustFail(with(func(c *sources.VaultConfig) { c.Address = old.Address }), "protocol version")
	l.mustFail(with(func(c *sources.VaultConfig) { c.Address = strings.Replace(l.proxy.Address, "http:", "https:", 1) }), "does not speak TLS")
	l.mustFail(with(func(c *sources.VaultConfig) { c.Address = strings.Replace(plain.Address, "https:", "http:", 1) }), "https or http")
}

// A certificate in a bundle that cannot be read is named, also where the others suffice.
func TestBundleWithABrokenCertificate(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	authority, stranger := vaulttest.MustAuthority(t), vaulttest.MustAuthority(t)
	serverCert, _, _ := authority.MustIssue(t, "127.0.0.1")
	front := l.server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{serverCert}})
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
			l.t = t
			l.config.Address, l.config.CACert = front.Address, filepath.Join(t.TempDir(), "bundle.pem")
			put := func(content string) {
				if err := os.WriteFile(l.config.CACert, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			names := "certificate 1 in " + l.config.CACert + " cannot be read"
			put(broken)
			if _, err := sources.NewVault(l.config); err == nil || !strings.Contains(err.Error(), "vault.ca_cert: "+names) {
				t.Errorf("alone: %v", err)
			}
			put(broken + string(whole))
			l.mustFail(l.kv(l.vault()), "authority that is not trusted", names, "replace it")
			put("a comment\n" + broken + string(right))
			l.mustPoll(l.kv(l.vault()), always)
			if log := l.log.String(); strings.Count(log, names) != 2 {
				t.Errorf("not told once by each: %s", log)
			}
		})
	}
	l.t = t
}

func TestHangingVaultHonoursTheContext(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	v := l.vault()
	kv, waiting := l.kv(v), l.kv(v)
	l.proxy.Hang()
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	for _, one := range []*sources.KV{kv, waiting} {
		go func() {
			_, err := one.Poll(ctx, always)
			errs <- err
		}()
	}
	if err := l.proxy.Await(t.Context(), 1, vaulttest.Request.Login); err != nil {
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
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	l.proxy.Down()
	l.mustFail(kv, "vault at "+l.proxy.Address, "refused", "vault.address")
	if err := l.proxy.Up(); err != nil {
		t.Fatal(err)
	}
	l.mustPoll(kv, never)
	if logins := l.logins(); logins != 1 {
		t.Errorf("%d logins, want 1: an outage does not end a token", logins)
	}
	if !l.server.External {
		l.server.MustSeal()
		l.mustFail(kv, "sealed", "unseal")
		l.server.MustUnseal()
		l.mustPoll(kv, always)
	}
}

func TestAnswersAreExplained(t *testing.T) {
	l := newLab(t)
	// An older client secret looks like any other id, so its look gives it away to nobody.
	const old = "c0ffee00-0000-4000-8000-00000000cafe"
	l.hidden = append(l.hidden, old)
	l.server.MustWrite(path, oauth("client_secret", old))
	kv := l.kv(l.vault())
	l.mustPoll(kv, always)
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
		l.proxy.Forward()
		// What is between us and Vault may repeat anything, in any dress.
		l.proxy.Answer("/metadata/", test.status, "told\nby \x1b[31mvault "+secretCanary+" "+strings.Join(l.hidden, " ")+" hvs.SomebodyElsesToken")
		l.mustFail(kv, append(test.words, "told", "read "+l.server.Mount+"/metadata/"+path)...)
		l.proxy.Forward()
		l.proxy.AnswerBody("/metadata/", test.status, "<html>"+secretCanary+strings.Repeat("x", 100_000))
		if err := l.mustFail(kv, test.words...); strings.Contains(err.Error(), "html") || len(err.Error()) > 1000 {
			t.Errorf("the body is quoted: %.200s", err)
		}
	}
}

func TestAnswersThatAreNotVaults(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	kv := l.kv(l.vault())
	l.mustPoll(kv, always)
	for body, word := range map[string]string{
		"<html>" + secretCanary:                               "KV version 2",
		`{"data":{"client_secret":"` + secretCanary + `"}}`:   "KV version 2",
		`{"data":{"current_version":"` + secretCanary + `"}}`: "KV version 2",
		`{}`: "KV version 2",
		``:   "KV version 2",
		`{"data":{"current_version":1,"x":"` + strings.Repeat("x", 1<<20) + `"}}`: "larger than 1024 KiB",
		`{"data":{"current_version":7,"versions":{}}}`:                            "newest version",
	} {
		l.proxy.Forward()
		l.proxy.AnswerBody("/metadata/", http.StatusOK, body)
		l.mustFail(kv, word)
	}
	// A standby that is behind: the version is known and cannot be read. That must not be remembered as refused.
	l.proxy.Forward()
	l.proxy.AnswerBody("/data/", http.StatusNotFound, `{"errors":[]}`)
	l.server.MustWrite(path, oauth())
	if err := l.mustFail(kv, "asked again later"); strings.Contains(err.Error(), "no secret") {
		t.Errorf("refused: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	standby := func(to func(r *http.Request) string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to(r), http.StatusTemporaryRedirect)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	l.config.Address = standby(func(r *http.Request) string { return l.proxy.Address + r.URL.RequestURI() })
	l.mustPoll(l.kv(l.vault()), always)
	l.proxy.Requests()
	l.config.Address = standby(func(r *http.Request) string { return l.proxy.Address + "/login?next=" + r.URL.Path })
	l.mustFail(l.kv(l.vault()), "redirects to "+l.proxy.Address, "not followed")
	if requests := l.proxy.Requests(); len(requests) != 0 {
		t.Errorf("the redirect was followed: %+v", requests)
	}
}

// What came over TLS is not sent on in clear, though it is Vault that is said to be there.
func TestRedirectsFromTLSToClear(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	authority := vaulttest.MustAuthority(t)
	serverCert, _, _ := authority.MustIssue(t, "127.0.0.1")
	standby := l.server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{serverCert}})
	l.config.Address, l.config.CACert = standby.Address, authority.File
	v := l.vault()
	kv := l.kv(v)
	for _, part := range []string{"/login", "/metadata/"} {
		standby.Serve(part, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, l.proxy.Address+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		})
		l.mustFail(kv, "redirects to "+l.proxy.Address, "not followed")
		standby.Forward()
		v.Soon()
		l.mustPoll(kv, always)
	}
	if requests := l.proxy.Requests(); len(requests) != 0 {
		t.Errorf("sent in clear: %+v", requests)
	}
}
