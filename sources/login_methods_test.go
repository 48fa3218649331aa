package sources_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources"
	"campaign-credsync/sources/vaulttest"
)

// signedLab logs in with a token that sign makes for a subject; right is the one that the role takes.
type signedLab struct {
	*lab
	sign  func(signer *vaulttest.Signer, subject string, end time.Time) string
	ours  *vaulttest.Signer
	mount string
}

const rightSubject = "campaign"

func newSignedLab(t *testing.T, method string) *signedLab {
	t.Helper()
	l := &signedLab{lab: newLab(t), ours: vaulttest.MustSigner(t)}
	policy := l.server.ReadPolicy(path)
	auth := sources.Auth{Method: method, JWTFile: filepath.Join(t.TempDir(), "token")}
	switch method {
	case "jwt":
		auth.Mount, auth.Role = l.server.MustJWTRole(policy, time.Hour, l.ours, rightSubject)
		l.sign = func(signer *vaulttest.Signer, subject string, end time.Time) string {
			return signer.Sign(map[string]any{"sub": subject, "aud": "vault", "exp": end.Unix()})
		}
	case "kubernetes":
		auth.Mount, auth.Role = l.server.MustKubernetesRole(policy, time.Hour, l.ours.MustReviewer(t), "prod", rightSubject)
		l.sign = func(signer *vaulttest.Signer, subject string, end time.Time) string {
			return signer.ServiceAccount("prod", subject, end)
		}
	}
	l.config.Auth, l.mount = auth, auth.Mount
	l.server.MustWrite(path, oauth())
	return l
}

func (l *signedLab) writeJWT(token string) {
	l.t.Helper()
	l.hidden = append(l.hidden, token)
	if err := os.WriteFile(l.config.Auth.JWTFile, []byte(token+"\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func inAnHour() time.Time { return time.Now().Add(time.Hour) }

// endsClean demands that v has logged in once at mount, and leaves no token behind.
func (l *lab) endsClean(v *sources.Vault, mount string) {
	l.t.Helper()
	if n := l.server.MustMountTokens(mount); n != 1 {
		l.t.Fatalf("%d tokens, want 1", n)
	}
	if err := v.Close(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	if n := l.server.MustMountTokens(mount); n != 0 {
		l.t.Errorf("%d tokens are left after a clean stop", n)
	}
}

func TestLoginBySignedToken(t *testing.T) {
	for _, method := range []string{"jwt", "kubernetes"} {
		t.Run(method, func(t *testing.T) {
			l := newSignedLab(t, method)
			kv := l.kv(l.vault())
			l.mustFail(kv, "vault.auth.jwt_file", l.config.Auth.JWTFile, "no such file")
			if requests := l.proxy.Requests(); len(requests) != 0 {
				t.Errorf("Vault was asked: %+v", requests)
			}
			l.writeJWT(l.sign(l.ours, rightSubject, inAnHour()))
			v := l.vault()
			l.mustPoll(l.kv(v), always)
			l.endsClean(v, l.mount)
		})
	}
}

// A token that was refused is tried again after a while, as nothing counts them; another in the file at once.
func TestRefusedSignedToken(t *testing.T) {
	for _, method := range []string{"jwt", "kubernetes"} {
		l := newSignedLab(t, method)
		for name, wrong := range map[string]string{
			"signed by another": l.sign(vaulttest.MustSigner(l.t), rightSubject, inAnHour()),
			"expired":           l.sign(l.ours, rightSubject, time.Now().Add(-time.Minute)),
			"of somebody else":  l.sign(l.ours, "somebody", inAnHour()),
			"that is no token":  "canary-canary",
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				l.writeJWT(wrong)
				v := l.vault()
				kv := l.kv(v)
				l.proxy.Requests()
				for range 5 { // more than would lock an AppRole
					v.Soon()
					l.mustFail(kv, "login at auth/"+l.mount, l.config.Auth.JWTFile, "next login not before")
				}
				if logins := l.logins(); logins != 5 {
					t.Errorf("%d logins, want 5", logins)
				}
				if entries, err := os.ReadDir(l.config.StateDir); err != nil || len(entries) != 0 {
					t.Errorf("noted: %v, %v", entries, err)
				}
				changed := run(t, v)
				l.writeJWT(l.sign(l.ours, rightSubject, inAnHour()))
				await(t, changed)
				l.mustPoll(kv, always)
			})
		}
	}
}

// The file is read at each login: what was in it at the start has expired by then.
func TestSignedTokenIsReadAtEachLogin(t *testing.T) {
	const lasts = 10 * time.Second // until then the first login is done, also on a busy machine
	l := newSignedLab(t, "jwt")
	l.writeJWT(l.sign(l.ours, rightSubject, time.Now().Add(lasts)))
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	l.writeJWT(l.sign(l.ours, rightSubject, inAnHour()))
	select {
	case <-time.After(lasts): // until the first one has expired
	case <-t.Context().Done():
	}
	accessors := l.server.MustMountTokens(l.mount)
	if accessors != 1 {
		t.Fatalf("%d tokens, want 1", accessors)
	}
	l.server.MustRevokeMountTokens(l.mount)
	l.mustPoll(kv, always)
}

// certLab has a Vault that serves TLS itself, as a proxy would end it.
type certLab struct {
	*lab
	trusted *vaulttest.Authority
	mount   string
}

func newCertLab(t *testing.T) *certLab {
	t.Helper()
	listeners := vaulttest.MustAuthority(t)
	l := &certLab{lab: newLabOn(t, vaulttest.StartTLS(t, listeners), (*vaulttest.Server).ReadPolicy, time.Hour), trusted: vaulttest.MustAuthority(t)}
	l.server.MustWrite(path, oauth())
	auth := sources.Auth{Method: "cert"}
	auth.Mount, auth.Role = l.server.MustCertRole(l.server.ReadPolicy(path), time.Hour, l.trusted)
	l.mount = auth.Mount
	l.config.Auth, l.config.Address, l.config.CACert = auth, l.server.Address, listeners.File
	dir := t.TempDir()
	l.config.ClientCert, l.config.ClientKey = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	l.renew(l.trusted, "first")
	return l
}

// renew puts a new pair in place of the old one, the certificate first.
func (l *certLab) renew(authority *vaulttest.Authority, name string) {
	l.t.Helper()
	_, cert, key := authority.MustIssue(l.t, name)
	for from, to := range map[string]string{cert: l.config.ClientCert, key: l.config.ClientKey} {
		if err := os.Rename(from, to); err != nil {
			l.t.Fatal(err)
		}
	}
}

func TestLoginByCertificate(t *testing.T) {
	for _, role := range []bool{true, false} {
		l := newCertLab(t)
		if !role {
			l.config.Auth.Role = ""
		}
		v := l.vault()
		l.mustPoll(l.kv(v), always)
		l.endsClean(v, l.mount)
	}
}

// A login shows the certificate that is there now, though a connection with the old one is kept for the polls.
func TestRenewedCertificateIsShown(t *testing.T) {
	l := newCertLab(t)
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	for _, name := range []string{"second", "third"} {
		l.renew(l.trusted, name)
		l.server.MustRevokeMountTokens(l.mount)
		l.pollUntilRead(v, kv)
		if got := l.server.MustMountNames(l.mount); len(got) != 1 || got[0] != name {
			t.Errorf("logged in as %v, want %s", got, name)
		}
	}
}

// pollUntilRead polls as long as only the least time between two logins puts it off.
func (l *lab) pollUntilRead(v *sources.Vault, kv *sources.KV) {
	l.t.Helper()
	for {
		v.Soon()
		_, err := kv.Poll(l.t.Context(), always)
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "the last one was just now") {
			l.t.Fatal(err)
		}
		select {
		case <-l.t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestBrokenPairKeepsTheLastGoodOne(t *testing.T) {
	l := newCertLab(t)
	v := l.vault()
	kv := l.kv(v)
	for _, broken := range []string{"", "-----BEGIN CERTIFICATE-----\ncanary"} {
		if err := os.WriteFile(l.config.ClientCert, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		l.pollUntilRead(v, kv)
		l.server.MustRevokeMountTokens(l.mount)
		l.pollUntilRead(v, kv)
	}
	if n := strings.Count(l.log.String(), "the last good one is shown"); n != 1 {
		t.Errorf("%d warnings, want 1: %s", n, l.log)
	}
	// The new certificate with the old key is half a pair.
	l.renew(l.trusted, "half")
	half, err := os.ReadFile(l.config.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	l.renew(l.trusted, "whole")
	l.server.MustRevokeMountTokens(l.mount)
	l.pollUntilRead(v, kv)
	whole, err := os.ReadFile(l.config.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.config.ClientKey, half, 0o600); err != nil {
		t.Fatal(err)
	}
	l.server.MustRevokeMountTokens(l.mount)
	l.pollUntilRead(v, kv)
	if err := os.WriteFile(l.config.ClientKey, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := l.server.MustMountNames(l.mount); len(got) != 1 || got[0] != "whole" {
		t.Errorf("logged in as %v, want whole", got)
	}
	if n := strings.Count(l.log.String(), "the last good one is shown"); n != 2 {
		t.Errorf("%d warnings, want 2: %s", n, l.log)
	}
}

// A certificate that is not trusted is shown again after a while, and a trusted one at once.
func TestRefusedCertificate(t *testing.T) {
	l := newCertLab(t)
	l.renew(vaulttest.MustAuthority(t), "stranger")
	v := l.vault()
	kv := l.kv(v)
	for range 6 {
		v.Soon()
		l.mustFail(kv, "login at auth/"+l.mount, l.config.ClientCert, "next login not before")
	}
	changed := run(t, v)
	l.renew(l.trusted, "friend")
	await(t, changed)
	l.mustPoll(kv, always)
}

func TestMethodsNeedTheirSettings(t *testing.T) {
	authority := vaulttest.MustAuthority(t)
	_, cert, key := authority.MustIssue(t, "client")
	for _, test := range []struct {
		config sources.VaultConfig
		words  string
	}{
		{sources.VaultConfig{Auth: sources.Auth{Method: "cert"}}, "vault.client_cert"},
		{sources.VaultConfig{Address: "http://127.0.0.1:1", ClientCert: cert, ClientKey: key, Auth: sources.Auth{Method: "cert"}}, "https://"},
		{sources.VaultConfig{Auth: sources.Auth{Method: "jwt", JWTFile: "/j"}}, "vault.auth.role"},
		{sources.VaultConfig{Auth: sources.Auth{Method: "jwt", Role: "r"}}, "vault.auth.jwt_file"},
		{sources.VaultConfig{Auth: sources.Auth{Method: "kubernetes", Role: "r"}}, "vault.auth.jwt_file"},
		{sources.VaultConfig{Auth: sources.Auth{Method: "kubernetes", JWTFile: "/j"}}, "vault.auth.role"},
		{sources.VaultConfig{Auth: sources.Auth{Method: "jwt", Mount: "a/../b", Role: "r", JWTFile: "/j"}}, "vault.auth.mount"},
		{sources.VaultConfig{Auth: sources.Auth{Method: "ldap"}}, "vault.auth.method"},
	} {
		if test.config.Address == "" {
			test.config.Address = "https://127.0.0.1:1"
		}
		if _, err := sources.NewVault(test.config); err == nil || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%+v: %v", test.config.Auth, err)
		}
	}
}

// Logins, lookups and revocation go to the namespace of the login, reads to that of the secret. Vault Community has no
// namespaces and takes no notice of them, so the requests show it.
func TestNamespaceOfEveryLogin(t *testing.T) {
	for _, method := range []string{"approle", "jwt", "kubernetes"} {
		t.Run(method, func(t *testing.T) {
			var l *lab
			want := map[string]int{"/login": 1, "/auth/token/revoke-self": 1}
			if method == "approle" {
				l = newEndingLab(t, time.Hour, 2*time.Hour)
				l.wrap(time.Hour)
				want["/sys/wrapping/lookup"], want["/sys/wrapping/unwrap"], want["/secret-id/lookup"] = 1, 1, 1
			} else {
				signed := newSignedLab(t, method)
				signed.writeJWT(signed.sign(signed.ours, rightSubject, inAnHour()))
				l = signed.lab
			}
			l.config.Namespace, l.config.Auth.Namespace = "team", "shared"
			v := l.vault()
			l.mustPoll(l.kv(v), always)
			if method == "approle" {
				if err := l.log.Await(t.Context(), endsSoon); err != nil {
					t.Fatal(err)
				}
			}
			if err := v.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			requests := l.proxy.Requests()
			for _, r := range requests {
				space := "team/"
				if strings.HasPrefix(r.Path, "/v1/auth/") || strings.HasPrefix(r.Path, "/v1/sys/") {
					space = "shared/"
				}
				if strings.TrimSuffix(r.Namespace, "/")+"/" != space {
					t.Errorf("%s %s goes to namespace %q, want %s", r.Method, r.Path, r.Namespace, space)
				}
			}
			for end, n := range want {
				if got := vaulttest.Count(requests, func(r vaulttest.Request) bool { return strings.HasSuffix(r.Path, end) }); got != n {
					t.Errorf("%d requests for %s, want %d", got, end, n)
				}
			}
		})
	}
}

// The same of a login by certificate. The proxy that reads the request ends its connection, so it is refused.
func TestNamespaceOfALoginByCertificate(t *testing.T) {
	l := newLab(t)
	authority := vaulttest.MustAuthority(t)
	pair, _, _ := authority.MustIssue(t, "127.0.0.1")
	_, l.config.ClientCert, l.config.ClientKey = authority.MustIssue(t, "client")
	proxy := l.server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert})
	l.config.Auth = sources.Auth{Method: "cert", Namespace: "shared"}
	l.config.Auth.Mount, _ = l.server.MustCertRole(l.server.ReadPolicy(path), time.Hour, authority)
	l.config.Address, l.config.CACert, l.config.Namespace = proxy.Address, authority.File, "team"
	l.mustFail(l.kv(l.vault()), "login at auth/"+l.config.Auth.Mount, "ends the TLS connection")
	if requests := proxy.Requests(); len(requests) != 1 || strings.TrimSuffix(requests[0].Namespace, "/") != "shared" {
		t.Errorf("asked %+v", requests)
	}
}
