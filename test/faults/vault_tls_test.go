package faults_test

import (
	"crypto/tls"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// Vault's certificate is not, or no longer, one that may be trusted: nothing is sent there, and the daemon says what to renew.
func TestVaultCertificates(t *testing.T) {
	t.Parallel()
	authority, other := vaulttest.MustAuthority(t), vaulttest.MustAuthority(t)
	good, _, _ := authority.MustIssue(t, "127.0.0.1")
	expired, _, _ := authority.MustIssueUntil(t, time.Now().Add(-time.Minute), "127.0.0.1")
	early, _, _ := authority.MustIssueUntil(t, time.Now().Add(24*time.Hour), "127.0.0.1")
	name, _, _ := authority.MustIssue(t, "vault.example.com")
	wrong, _, _ := other.MustIssue(t, "127.0.0.1")
	noName, _, _ := authority.MustIssue(t)
	alone, _, _ := authority.MustIntermediate(t).MustIssue(t, "127.0.0.1")
	var shown atomic.Pointer[tls.Certificate]
	show := func(w *world.World, c *tls.Certificate) {
		w.Proxy.Down() // a connection that is open stays trusted
		w.Proxy.Requests()
		shown.Store(c)
		w.Must(w.Proxy.Up())
	}
	shown.Store(&good)

	w := world.New(t, container.Options{})
	w.Proxy.Close()
	var err error
	w.Proxy, err = vaulttest.NewProxy(w.Vault.Address, &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil },
	})
	w.Must(err)
	w.Reconfigured(func(*container.Options) {})
	config, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, []byte(strings.Replace(string(config), "vault:\n", "vault:\n  ca_cert: "+authority.File+"\n", 1)), 0o600))
	version, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(version)

	for _, c := range []struct {
		name string
		bad  *tls.Certificate
		says []string
	}{
		{"expired", &expired, []string{"certificate is not trusted", "expired", "renew it", "clock"}},
		{"not yet valid", &early, []string{"certificate is not trusted", "clock"}},
		{"another authority", &wrong, []string{"unknown authority", "vault.ca_cert"}},
		{"another name", &name, []string{"IP SANs", "vault.tls_server_name"}},
		{"a common name only", &noName, []string{"IP SANs", "issued again"}},
		{"without the intermediate", &alone, []string{"unknown authority", "test intermediate", "tls_cert_file"}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			w.In(t)
			show(w, c.bad)
			w.Signal(syscall.SIGUSR1)
			w.Is("prod", "degraded/vault_unreachable", append(c.says, w.Proxy.Address)...)
			keepsAndGuards(w, secret)
			world.Says(t, w.Log(), `level=ERROR msg="source unreachable, keeping the applied credential"`)
			if requests := w.Proxy.Requests(); len(requests) != 0 {
				t.Errorf("something was sent to whoever has that certificate: %+v", requests)
			}
			version, secret = w.NewSecret("prod")
			show(w, &good)
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
