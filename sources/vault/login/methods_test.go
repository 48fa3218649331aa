package login_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/sources/vault"
	"campaign-credsync/test/vaulttest"
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
	policy := l.Server.ReadPolicy(path)
	auth := config.Auth{Method: method, JWTFile: filepath.Join(t.TempDir(), "token")}
	switch method {
	case "jwt":
		auth.Mount, auth.Role = l.Server.MustJWTRole(policy, time.Hour, l.ours, rightSubject)
		l.sign = func(signer *vaulttest.Signer, subject string, end time.Time) string {
			return signer.Sign(map[string]any{"sub": subject, "aud": "vault", "exp": end.Unix()})
		}
	case "kubernetes":
		auth.Mount, auth.Role = l.Server.MustKubernetesRole(policy, time.Hour, l.ours.MustReviewer(t), "prod", rightSubject)
		l.sign = func(signer *vaulttest.Signer, subject string, end time.Time) string {
			return signer.ServiceAccount("prod", subject, end)
		}
	}
	l.Config.Auth, l.mount = auth, auth.Mount
	l.Server.MustWrite(path, oauth())
	return l
}

func (l *signedLab) writeJWT(token string) {
	l.T.Helper()
	l.Hidden = append(l.Hidden, token)
	if err := os.WriteFile(l.Config.Auth.JWTFile, []byte(token+"\n"), 0o600); err != nil {
		l.T.Fatal(err)
	}
}

func inAnHour() time.Time { return time.Now().Add(time.Hour) }

// endsClean demands that v has logged in once at mount, and leaves no token behind.
func (l *lab) endsClean(v *vault.Vault, mount string) {
	l.T.Helper()
	if n := l.Server.MustMountTokens(mount); n != 1 {
		l.T.Fatalf("%d tokens, want 1", n)
	}
	if err := v.Close(l.T.Context()); err != nil {
		l.T.Fatal(err)
	}
	if n := l.Server.MustMountTokens(mount); n != 0 {
		l.T.Errorf("%d tokens are left after a clean stop", n)
	}
}

func TestLoginBySignedToken(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"jwt", "kubernetes"} {
		t.Run(method, func(t *testing.T) {
			l := newSignedLab(t, method)
			kv := l.KV(l.Vault())
			l.MustFail(kv, "vault.auth.jwt_file", l.Config.Auth.JWTFile, "no such file")
			if requests := l.Proxy.Requests(); len(requests) != 0 {
				t.Errorf("Vault was asked: %+v", requests)
			}
			l.writeJWT(l.sign(l.ours, rightSubject, inAnHour()))
			v := l.Vault()
			l.MustPoll(l.KV(v), always)
			l.endsClean(v, l.mount)
		})
	}
}

// A token that was refused is tried again after a while, as nothing counts them; another in the file at once.
func TestRefusedSignedToken(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"jwt", "kubernetes"} {
		l := newSignedLab(t, method)
		for name, wrong := range map[string]string{
			"signed by another": l.sign(vaulttest.MustSigner(l.T), rightSubject, inAnHour()),
			"expired":           l.sign(l.ours, rightSubject, time.Now().Add(-time.Minute)),
			"of somebody else":  l.sign(l.ours, "somebody", inAnHour()),
			"that is no token":  "canary-canary",
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				l.writeJWT(wrong)
				v := l.Vault()
				kv := l.KV(v)
				l.Proxy.Requests()
				for range 5 { // more than would lock an AppRole
					v.ResetBackoff()
					l.MustFail(kv, "login at auth/"+l.mount, l.Config.Auth.JWTFile, "next login not before")
				}
				if logins := l.Logins(); logins != 5 {
					t.Errorf("%d logins, want 5", logins)
				}
				if entries, err := os.ReadDir(l.Config.StateDir); err != nil || len(entries) != 0 {
					t.Errorf("noted: %v, %v", entries, err)
				}
				changed := run(t, v)
				l.writeJWT(l.sign(l.ours, rightSubject, inAnHour()))
				await(t, changed)
				l.MustPoll(kv, always)
			})
		}
	}
}

// The file is read at each login: what was in it at the start has expired by then.
func TestSignedTokenIsReadAtEachLogin(t *testing.T) {
	t.Parallel()
	const lasts = 15 * time.Second // until then the first login is done, also on a busy machine
	l := newSignedLab(t, "jwt")
	l.writeJWT(l.sign(l.ours, rightSubject, time.Now().Add(lasts)))
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	l.writeJWT(l.sign(l.ours, rightSubject, inAnHour()))
	select {
	case <-time.After(lasts): // until the first one has expired
	case <-t.Context().Done():
	}
	accessors := l.Server.MustMountTokens(l.mount)
	if accessors != 1 {
		t.Fatalf("%d tokens, want 1", accessors)
	}
	l.Server.MustRevokeMountTokens(l.mount)
	l.MustPoll(kv, always)
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
	l.Server.MustWrite(path, oauth())
	auth := config.Auth{Method: "cert", Mount: "cert"}
	auth.Mount, auth.Role = l.Server.MustCertRole(l.Server.ReadPolicy(path), time.Hour, l.trusted)
	l.mount = auth.Mount
	l.Config.Auth, l.Config.Address, l.Config.CACert = auth, l.Server.Address, listeners.File
	dir := t.TempDir()
	l.Config.ClientCert, l.Config.ClientKey = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	l.renew(l.trusted, "first")
	return l
}

// renew puts a new pair in place of the old one, the certificate first.
func (l *certLab) renew(authority *vaulttest.Authority, name string) {
	l.T.Helper()
	_, cert, key := authority.MustIssue(l.T, name)
	for from, to := range map[string]string{cert: l.Config.ClientCert, key: l.Config.ClientKey} {
		if err := os.Rename(from, to); err != nil {
			l.T.Fatal(err)
		}
	}
}

func TestLoginByCertificate(t *testing.T) {
	t.Parallel()
	for _, role := range []bool{true, false} {
		l := newCertLab(t)
		if !role {
			l.Config.Auth.Role = ""
		}
		v := l.Vault()
		l.MustPoll(l.KV(v), always)
		l.endsClean(v, l.mount)
	}
}

// A login shows the certificate that is there now, though a connection with the old one is kept for the polls.
func TestRenewedCertificateIsShown(t *testing.T) {
	t.Parallel()
	l := newCertLab(t)
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	for _, name := range []string{"second", "third"} {
		l.renew(l.trusted, name)
		l.Server.MustRevokeMountTokens(l.mount)
		l.pollUntilRead(v, kv)
		if got := l.Server.MustMountNames(l.mount); len(got) != 1 || got[0] != name {
			t.Errorf("logged in as %v, want %s", got, name)
		}
	}
}

// pollUntilRead polls as long as only the least time between two logins puts it off.
func (l *lab) pollUntilRead(v *vault.Vault, kv *vault.KV) {
	l.T.Helper()
	for {
		v.ResetBackoff()
		_, err := kv.Poll(l.T.Context(), always)
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "the last one was just now") {
			l.T.Fatal(err)
		}
		select {
		case <-l.T.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestBrokenPairKeepsTheLastGoodOne(t *testing.T) {
	t.Parallel()
	l := newCertLab(t)
	v := l.Vault()
	kv := l.KV(v)
	for _, broken := range []string{"", "-----BEGIN CERTIFICATE-----\ncanary"} {
		if err := os.WriteFile(l.Config.ClientCert, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		l.pollUntilRead(v, kv)
		l.Server.MustRevokeMountTokens(l.mount)
		l.pollUntilRead(v, kv)
	}
	if n := strings.Count(l.Log.String(), "using the last good one"); n != 1 {
		t.Errorf("%d warnings, want 1: %s", n, l.Log)
	}
	// The new certificate with the old key is half a pair.
	l.renew(l.trusted, "half")
	half, err := os.ReadFile(l.Config.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	l.renew(l.trusted, "whole")
	l.Server.MustRevokeMountTokens(l.mount)
	l.pollUntilRead(v, kv)
	whole, err := os.ReadFile(l.Config.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.Config.ClientKey, half, 0o600); err != nil {
		t.Fatal(err)
	}
	l.Server.MustRevokeMountTokens(l.mount)
	l.pollUntilRead(v, kv)
	if err := os.WriteFile(l.Config.ClientKey, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := l.Server.MustMountNames(l.mount); len(got) != 1 || got[0] != "whole" {
		t.Errorf("logged in as %v, want whole", got)
	}
	if n := strings.Count(l.Log.String(), "using the last good one"); n != 2 {
		t.Errorf("%d warnings, want 2: %s", n, l.Log)
	}
}

// A certificate that is not trusted is shown again after a while, and a trusted one at once.
func TestRefusedCertificate(t *testing.T) {
	t.Parallel()
	l := newCertLab(t)
	l.renew(vaulttest.MustAuthority(t), "stranger")
	v := l.Vault()
	kv := l.KV(v)
	for range 6 {
		v.ResetBackoff()
		l.MustFail(kv, "login at auth/"+l.mount, l.Config.ClientCert, "next login not before")
	}
	changed := run(t, v)
	l.renew(l.trusted, "friend")
	await(t, changed)
	l.MustPoll(kv, always)
}

// Logins, lookups and revocation go to the namespace of the login, reads to that of the secret. Vault Community has no
// namespaces and takes no notice of them, so the requests show it.
func TestNamespaceOfEveryLogin(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"approle", "jwt", "kubernetes"} {
		t.Run(method, func(t *testing.T) {
			var l *lab
			want := map[string]int{"/login": 1, "/auth/token/revoke-self": 1}
			if method == "approle" {
				l = newEndingLab(t, time.Hour, 2*time.Hour)
				l.Wrap(time.Hour)
				want["/sys/wrapping/lookup"], want["/sys/wrapping/unwrap"], want["/secret-id/lookup"] = 1, 1, 1
			} else {
				signed := newSignedLab(t, method)
				signed.writeJWT(signed.sign(signed.ours, rightSubject, inAnHour()))
				l = signed.lab
			}
			l.Config.Namespace, l.Config.Auth.Namespace = "team", "shared"
			v := l.Vault()
			l.MustPoll(l.KV(v), always)
			if method == "approle" {
				if err := l.Log.Await(t.Context(), endsSoon); err != nil {
					t.Fatal(err)
				}
			}
			if err := v.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			requests := l.Proxy.Requests()
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
	t.Parallel()
	l := newLab(t)
	authority := vaulttest.MustAuthority(t)
	pair, _, _ := authority.MustIssue(t, "127.0.0.1")
	_, l.Config.ClientCert, l.Config.ClientKey = authority.MustIssue(t, "client")
	proxy := l.Server.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert})
	l.Config.Auth = config.Auth{Method: "cert", Mount: "cert", Namespace: "shared"}
	l.Config.Auth.Mount, _ = l.Server.MustCertRole(l.Server.ReadPolicy(path), time.Hour, authority)
	l.Config.Address, l.Config.CACert, l.Config.Namespace = proxy.Address, authority.File, "team"
	l.MustFail(l.KV(l.Vault()), "login at auth/"+l.Config.Auth.Mount, "ends the TLS connection")
	if requests := proxy.Requests(); len(requests) != 1 || strings.TrimSuffix(requests[0].Namespace, "/") != "shared" {
		t.Errorf("asked %+v", requests)
	}
}
