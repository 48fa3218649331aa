//go:build systemd

package systemd

import (
	"bytes"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"campaign-credsync/test/vaulttest"
)

// TestPackagesRPM takes the rpm through its life, by the rpm of a Debian: install, upgrade, downgrade, erase. What it cannot show: the
// dependencies, and the dnf, of a Red Hat.
func TestPackagesRPM(t *testing.T) {
	t.Setenv("VAULT_ADDR", "")
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("VAULT_NAMESPACE", "")
	requireTools(t)
	architecture := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	h := bootHost(t, vaulttest.Start(t), buildStandin(t), rootFileSystem(t, "rpm"))
	for name, from := range map[string]struct{ source, version string }{"older": {unpackagedSource(t), "1.0.0"}, "newer": {repository(t), "1.1.0"}} {
		file := "campaign-credsync-" + from.version + "-1." + architecture + ".rpm"
		copyFile(t, filepath.Join(buildPackage(t, from.source, from.version, "rpm"), file), h.path("/root/"+name+".rpm"))
	}
	before := h.document(t)
	says(t, h.rpm(t, "-i", "older"), "not started, as there is no "+configFile)
	h.isUnit(t, "inactive", false)
	if !bytes.Equal(h.document(t), before) {
		t.Error("the package changes the instance's file")
	}
	h.configureAsShipped(t)
	version, secret := h.rotate(t)
	h.run(t, "systemctl", "enable", "--now", unit)
	h.awaitApplied(t, version)
	pid := h.runsVersion(t, "1.0.0", "")
	applies, file := h.applies(t), h.document(t)

	h.rpm(t, "-U", "newer")
	pid = h.runsVersion(t, "1.1.0", pid)
	h.isUnit(t, "active", true)

	h.configure(t, h.config+"\nno_such_key: 1\n")
	said := h.rpm(t, "-U", "older", "--oldpackage")
	says(t, said, "NOT restarted")
	says(t, said, "no_such_key")
	if got := h.awaitApplied(t, 1); got != pid {
		t.Errorf("process %s became %s", pid, got)
	}
	h.configure(t, h.config)
	h.rpm(t, "-U", "older", "--replacepkgs")
	h.runsVersion(t, "1.0.0", pid)
	if got := strings.TrimSpace(h.run(t, "rpm", "-q", "campaign-credsync")); got != "campaign-credsync-1.0.0-1."+architecture {
		t.Errorf("rpm has %s", got)
	}
	if h.applies(t) != applies || !bytes.Equal(h.document(t), file) || !h.holds(t, secret) {
		t.Error("an upgrade forgets what was applied")
	}

	h.isRemoved(t, func() { says(t, h.rpmDo(t, "-e", "campaign-credsync"), "state and configuration stay") },
		func() string { return h.rpm(t, "-i", "newer") }, map[string]bool{"/usr/share/campaign-credsync": false})
}

// rpm installs a package.
func (h *host) rpm(t *testing.T, how, name string, more ...string) (said string) {
	t.Helper()
	return h.rpmDo(t, append([]string{how, "/root/" + name + ".rpm", "--nodeps"}, more...)...)
}

// rpmDo runs rpm, which Debian does not let be used without more ado, and returns what it and the scripts say.
func (h *host) rpmDo(t *testing.T, args ...string) (said string) {
	t.Helper()
	o := h.try(t, append([]string{"rpm", "--force-debian"}, args...)...)
	if o.status != 0 || strings.Contains(o.stderr, "scriptlet failed") {
		t.Fatalf("rpm %s: %v", strings.Join(args, " "), o)
	}
	return o.stdout + o.stderr
}
