//go:build systemd

package systemd

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"campaign-credsync/test/vaulttest"
)

// scene is what happens around a block of commands.
type scene struct {
	before func(*testing.T, *reader)
	after  func(t *testing.T, p *reader, said string)
}

// scenes are those of the pages, by the number of the block among those with commands, the first being 1.
var scenes = map[string]map[int]scene{
	"install.md": {
		7: {after: func(t *testing.T, p *reader, said string) {
			p.config = p.read(t, configFile)
			p.isInSync(t)
		}},
		8: {after: func(t *testing.T, p *reader, said string) { // RHEL 8: back to the unit of this Debian
			p.isInSync(t)
			p.run(t, "rm", "-r", "/etc/systemd/system/"+unit, "/etc/campaign-credsync/login")
			p.run(t, "systemctl", "daemon-reload")
			p.run(t, "systemctl", "restart", unit)
			p.isInSync(t)
		}},
	},
	"commands.md": {
		2: {after: func(t *testing.T, p *reader, said string) {
			p.awaitJournal(t, "", "full check requested reason=SIGUSR1")
		}},
		3: {after: func(t *testing.T, p *reader, said string) { p.isInSync(t) }},
		4: {before: listen, after: hooksTell},
	},
	"operate.md": {
		2: {after: func(t *testing.T, p *reader, said string) { p.isInSync(t) }},
		3: {after: func(t *testing.T, p *reader, said string) { p.isInSync(t) }},
	},
	"rotate-by-hand.md": {
		1: {after: func(t *testing.T, p *reader, said string) { p.awaitSecret(t) }},
		2: {after: func(t *testing.T, p *reader, said string) {
			if n := strings.Count(said, "in_sync"); n != 2 {
				t.Errorf("%d hosts in sync:\n%s", n, said)
			}
		}},
	},
	"break-glass.md": {
		1: {before: func(t *testing.T, p *reader) { p.proxy.Down() }},
		3: {after: func(t *testing.T, p *reader, said string) {
			if !p.holds(t, p.secret) {
				t.Error("what was set by hand is gone")
			}
			says(t, said, "adopted")
			if err := p.proxy.Up(); err != nil {
				t.Fatal(err)
			}
		}},
		4: {after: func(t *testing.T, p *reader, said string) {
			p.awaitSecret(t)
			testSecretsShowNowhere(t, p.host) // whoever does what the pages say leaves none behind
		}},
	},
	"vault.md": {
		2: {before: func(t *testing.T, p *reader) {
			_, file, _ := vaulttest.MustAuthority(t).MustIssue(t, "web1.example.com")
			copyFile(t, file, p.path("/root/ca.pem"))
			copyFile(t, file, p.path("/root/ca.crt"))
		}},
		3: {before: issuer},
		6: {after: func(t *testing.T, p *reader, said string) {
			p.config = p.read(t, configFile)
			p.isInSync(t)
			if p.show(t)["LoadCredential"] != "" {
				t.Error("the unit still loads the secret-id")
			}
		}},
		7: {before: func(t *testing.T, p *reader) {
			var mounts struct {
				Data map[string]struct{ Accessor string }
			}
			if err := p.vault.Call(t.Context(), http.MethodGet, "sys/auth", nil, &mounts); err != nil {
				t.Fatal(err)
			}
			p.here = append(p.here, "ACCESSOR", mounts.Data["approle/"].Accessor)
		}},
		8: {before: func(t *testing.T, p *reader) { p.write(t, "/root/credential.json", `{"client_secret":"p8e-x"}`, 0o600) }},
		9: {before: func(t *testing.T, p *reader) { p.run(t, "mkdir", "/run/secrets") }, after: func(t *testing.T, p *reader, said string) {
			says(t, p.read(t, "/run/secrets/campaign-dev.json"), p.secret)
		}},
	},
	"first-real-run.md": {
		1: {before: func(t *testing.T, p *reader) {
			p.run(t, "runuser", "-u", "neolane", "--", "nlserver-standin", "--standin-instance", campaignHome, "test")
			p.configure(t, p.config+"  - {name: test, path: campaign/prod/oauth}\n")
		}, after: func(t *testing.T, p *reader, said string) {
			says(t, p.read(t, "/root/survey.md"), "as assumed")
			p.configure(t, p.config)
			p.run(t, "systemctl", "start", unit)
			p.isInSync(t)
		}},
	},
	"uninstall.md": {
		1: {before: func(t *testing.T, p *reader) { p.left = p.document(t) }, after: func(t *testing.T, p *reader, said string) {
			p.isUnit(t, "inactive", false)
		}},
		3: {after: func(t *testing.T, p *reader, said string) {
			for _, path := range []string{"/etc/campaign-credsync", stateDir, "/usr/bin/campaign-credsync"} {
				if _, err := os.Lstat(p.path(path)); err == nil {
					t.Errorf("there is still %s", path)
				}
			}
			if !bytes.Equal(p.document(t), p.left) {
				t.Error("Campaign's file is not as before")
			}
			if err := p.vault.Call(t.Context(), http.MethodGet, "auth/approle/role/campaign-web1/role-id", nil, nil); err == nil {
				t.Error("the role is still there")
			}
		}},
	},
}

// issuer answers where Vault is told to fetch the keys of an issuer of JWTs, which Vault does at once. It is of the page only: logins by
// JWT have tests of their own.
func issuer(t *testing.T, p *reader) {
	asked := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		_, _ = io.WriteString(w, `{"keys":[]}`)
	}))
	t.Cleanup(func() {
		server.Close()
		if len(asked) == 0 {
			t.Error("Vault did not ask the issuer for its keys")
		}
	})
	p.here = append(p.here, "https://issuer.example.com/jwks", server.URL+"/jwks")
}

// isInSync waits for the newest version to be applied, and demands that the secret typed last is in the file.
func (p *reader) isInSync(t *testing.T) {
	t.Helper()
	p.awaitApplied(t, 1)
	if p.secret != "" && !p.holds(t, p.secret) {
		t.Error("the file does not hold the secret that was typed last")
	}
}

// awaitSecret waits until the secret typed last is in the file and activated.
func (p *reader) awaitSecret(t *testing.T) {
	t.Helper()
	pid := p.awaitUnit(t, "an active unit", p.active)["MainPID"]
	p.run(t, "sh", "-c", "kill -USR1 "+pid)
	await(t, "the secret that was typed", patience, func() bool { return p.holds(t, p.secret) })
	p.isInSync(t)
}
