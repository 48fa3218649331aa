//go:build systemd

package systemd

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// testRefusedSecretID: where the secret-id of a host is gone, install issues another, and the role has no other.
func testRefusedSecretID(t *testing.T, f *fleet) {
	h := f.hosts[2]
	role := "auth/" + f.vault.AuthMount + "/role/campaign-" + names[2]
	accessors := func() []string {
		var list struct{ Data struct{ Keys []string } }
		if err := f.vault.Call(t.Context(), "LIST", role+"/secret-id", nil, &list); err != nil {
			t.Fatal(err)
		}
		return list.Data.Keys
	}
	old := accessors()
	if len(old) != 1 {
		t.Fatalf("secret-ids: %v, want one", old)
	}
	if err := f.vault.Call(t.Context(), "POST", role+"/secret-id-accessor/destroy", map[string]any{"secret_id_accessor": old[0]}, nil); err != nil {
		t.Fatal(err)
	}
	h.run(t, "systemctl", "stop", unit)
	f.proxy.Answer("/login", http.StatusServiceUnavailable, "Vault is sealed")
	says(t, f.do(t, 1, "install"), "web3.example.com: login: ")
	f.proxy.Forward()
	f.recordWrappings()
	says(t, f.do(t, 0, "install"), "web3.example.com: in_sync")
	if now := accessors(); len(now) != 1 || now[0] == old[0] {
		t.Errorf("secret-ids: %v, want another one than %v", now, old)
	}
	f.unchanged(t)
}

// testHostHangs: a host that stops in the middle of a step holds up no other for ever.
func testHostHangs(t *testing.T, f *fleet) {
	const program = "/usr/local/sbin/dpkg-query"
	f.hosts[2].write(t, program, `#!/bin/sh
pid=$$
while [ "$(cat /proc/$pid/comm)" != sshd ]; do pid=$(sed -n 's/^PPid:\t//p' /proc/$pid/status); done
echo $pid >/run/stopped
kill -STOP $pid
exec sleep 600
`, 0o755)
	began := time.Now()
	says(t, f.rollout(t, 3, "verify", "hosts", names[2], names[0]), "web1: in_sync")
	t.Logf("given up after %s", time.Since(began).Round(time.Second))
	f.hosts[2].run(t, "rm", program)
	f.hosts[2].run(t, "sh", "-c", "kill -KILL $(cat /run/stopped)")
}

// testFailureStays: what one run calls a failure is none less for the next one, also where nothing is left to be done.
func testFailureStays(t *testing.T, f *fleet) {
	h := f.hosts[2]
	h.run(t, "mv", instanceFile, instanceFile+".away")
	await(t, "the file to be missed", patience, func() bool { return h.state(t).Reason == "file_missing" })
	for range 2 {
		says(t, f.do(t, 1, "install", names[2]), "file_missing")
	}
	says(t, f.do(t, 1, "plan", names[2]), "file_missing")
	h.run(t, "mv", instanceFile+".away", instanceFile)
	await(t, "the file to be there", patience, func() bool { return h.state(t).State == "in_sync" })

	h.run(t, "systemctl", "stop", unit)
	f.proxy.Answer("/login", http.StatusServiceUnavailable, "Vault is sealed")
	for range 2 {
		says(t, f.do(t, 1, "install", names[2]), "web3.example.com: login: ")
	}
	f.proxy.Forward()
	f.recordWrappings()
	says(t, f.do(t, 0, "install", names[2]), "web3.example.com: in_sync")
}

// testAnswerCutOff: what Vault had sent before the connection broke may be a wrapping token: showsNothing looks for it.
func testAnswerCutOff(t *testing.T, f *fleet) {
	h := f.hosts[2]
	h.run(t, "systemctl", "stop", unit)
	h.run(t, "rm", secretIDFile)
	known := len(f.wrapped.all())
	f.proxy.Serve("/secret-id", func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		f.proxy.Pass(answer, r)
		cut := f.wrapped.record(answer.Body.Bytes())
		if cut {
			w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()+1))
		}
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
		if cut {
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	says(t, f.do(t, 1, "install", names[2]), "curl: (")
	f.proxy.Forward()
	f.recordWrappings()
	if len(f.wrapped.all()) == known {
		t.Error("no wrapping token was cut off")
	}
	says(t, f.do(t, 0, "install", names[2]), "web3.example.com: in_sync")
	f.unchanged(t)
}

// testRollbackCutOff: the connection broke when the package was removed, and nothing else. The next run does the rest.
func testRollbackCutOff(t *testing.T, f *fleet) {
	h := f.hosts[2]
	h.run(t, "dpkg", "-r", "campaign-credsync")
	f.do(t, 0, "rollback", names[2])
	f.isInstalled(t, true, true, false)
	if o := h.try(t, "dpkg-query", "-W", "campaign-credsync"); o.status == 0 {
		t.Errorf("dpkg still knows the package: %v", o)
	}

	f.options[1] = filepath.Join(filepath.Dir(f.deb), "campaign-credsync-1.0.0-1."+map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]+".rpm")
	f.do(t, 0, "install", names[2])
	h.run(t, "rpm", "--force-debian", "-e", "campaign-credsync")
	f.do(t, 0, "rollback", names[2])
	f.options[1] = f.deb
	f.isInstalled(t, true, true, false)
	f.unchanged(t)
}

// testInstallCutOff: dpkg was ended when it had unpacked the package.
func testInstallCutOff(t *testing.T, f *fleet) {
	h := f.hosts[2]
	copyFile(t, f.deb, h.path("/root/credsync.deb"))
	h.run(t, "dpkg", "--unpack", "/root/credsync.deb")
	says(t, f.do(t, 0, "install", names[2]), "web3.example.com: held first_apply")
	f.rollout(t, 0, "adopt", "hosts", names[2])
	f.isInstalled(t, true, true, true)
}

func testHostDown(t *testing.T, f *fleet) {
	config, err := os.ReadFile(filepath.Join(f.home, "ssh_config"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "ssh_config", "Host web2\n HostName 127.0.0.1\n Port 1\n ProxyCommand none\n"+string(config))
	defer f.write(t, "ssh_config", string(config))
	said := f.do(t, 1, "install")
	says(t, said, "admin@web2: look at the host: ")
	says(t, said, "stopped at admin@web2. Done before: web1. Not touched: web3.example.com.")
	f.isInstalled(t, true, false, false)
	f.hosts[0].isUnit(t, "active", true)
	verified := f.rollout(t, 3, "verify", "hosts")
	for _, want := range []string{"web1: held first_apply: ", "admin@web2: ssh: ", "web3.example.com: no daemon answers"} {
		says(t, verified, want)
	}
	says(t, f.do(t, 1, "plan"), "web3.example.com: would install")
	f.unchanged(t)
}

func testAnothersConfiguration(t *testing.T, f *fleet) {
	h := f.hosts[1]
	ours := h.read(t, configFile)
	h.configure(t, ours+"# by hand\n")
	says(t, f.do(t, 1, "install"), "admin@web2: configuration: /etc/campaign-credsync/config.yaml is there with another content")
	says(t, f.do(t, 1, "rollback", "admin@web2"), "nothing is removed")
	h.isUnit(t, "active", true)
	f.isInstalled(t, true, true, true)
	h.configure(t, ours)
}

// testOtherPackages: the other two kinds, each over a secret-id that an attempt of before has left, and whose wrapping token is no good.
func testOtherPackages(t *testing.T, f *fleet) {
	dist, rpmArch := filepath.Dir(f.deb), map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	for _, name := range []string{"campaign-credsync_1.0.0_linux_" + runtime.GOARCH + ".tar.gz", "campaign-credsync-1.0.0-1." + rpmArch + ".rpm"} {
		t.Run(name, func(t *testing.T) {
			f.options[1] = filepath.Join(dist, name)
			f.hosts[2].write(t, secretIDFile, "hvs.left\n", 0o600)
			says(t, f.do(t, 0, "install", names[2]), "web3.example.com: held first_apply")
			f.do(t, 0, "plan", names[2])
			f.do(t, 0, "rollback", names[2])
			f.isInstalled(t, false, false, false)
			f.unchanged(t)
		})
	}
}
