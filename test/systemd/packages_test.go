//go:build systemd

package systemd

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
)

// TestPackages takes the deb through its life: install, configure, upgrade, downgrade, remove, install again, purge.
func TestPackages(t *testing.T) {
	t.Setenv("VAULT_ADDR", "")
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("VAULT_NAMESPACE", "")
	requireTools(t)
	older, newer := buildDeb(t, "1.0.0"), buildDeb(t, "1.1.0")
	h := newHost(t)
	copyFile(t, older, h.path("/root/older.deb"))
	copyFile(t, newer, h.path("/root/newer.deb"))
	if !t.Run("install", func(t *testing.T) { testDebInstall(t, h) }) {
		t.FailNow()
	}
	for _, part := range []struct {
		name string
		test func(*testing.T, *host)
	}{
		{"upgrade", testDebUpgrade},
		{"upgrade with a bad configuration", testDebUpgradeBadConfiguration},
		{"downgrade while paused", testDebDowngrade},
		{"arguments of rpm", testScriptsOfRPM},
		{"remove and install again", testDebRemove},
		{"purge", testDebPurge},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(t, h) }) {
			t.FailNow() // each begins where the one before ended
		}
	}
}

// buildDeb returns the deb of a version.
func buildDeb(t *testing.T, version string) string {
	t.Helper()
	dist := t.TempDir()
	out, err := outside(t, "make", "package", "DIST="+dist, "FORMATS=deb", "ARCHES="+runtime.GOARCH, "VERSION=v"+version, "PACKAGE_VERSION="+version)
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(out, 20))
	}
	return filepath.Join(dist, "campaign-credsync_"+version+"-1_"+runtime.GOARCH+".deb")
}

// dpkg runs it and returns what it and the scripts say.
func (h *host) dpkg(t *testing.T, args ...string) string {
	t.Helper()
	o := h.try(t, append([]string{"dpkg"}, args...)...)
	if o.status != 0 {
		t.Fatalf("dpkg %s: %v", strings.Join(args, " "), o)
	}
	return o.stdout + o.stderr
}

// isUnit fails the test unless the unit is in this state, and enabled or not.
func (h *host) isUnit(t *testing.T, active string, enabled bool) {
	t.Helper()
	if got := strings.TrimSpace(h.try(t, "systemctl", "is-active", unit).stdout); got != active {
		t.Errorf("the unit is %s, want %s", got, active)
	}
	if got := h.try(t, "systemctl", "is-enabled", unit); (got.status == 0) != enabled {
		t.Errorf("the unit is enabled: %t, want %t: %v", !enabled, enabled, got)
	}
}

// applies counts what nlserver was told to write.
func (h *host) applies(t *testing.T) (n int) {
	t.Helper()
	for _, r := range h.runs(t) {
		if r.Event == "end" && r.Kind == "set" {
			n++
		}
	}
	return n
}

// says fails the test unless text is in what was said.
func says(t *testing.T, said, text string) {
	t.Helper()
	if !strings.Contains(said, text) {
		t.Errorf("want %q in: %s", text, said)
	}
}

// runsVersion waits for a daemon in sync, of this version, that is not the process before.
func (h *host) runsVersion(t *testing.T, version, before string) (pid string) {
	t.Helper()
	pid = h.awaitApplied(t, 1)
	if pid == before {
		t.Errorf("process %s was not restarted", before)
	}
	says(t, h.run(t, "campaign-credsync", "status", "--json"), `"version":"v`+version+`"`)
	return pid
}

func testDebInstall(t *testing.T, h *host) {
	before := h.document(t)
	users := h.read(t, "/etc/passwd")
	said := h.dpkg(t, "-i", "/root/older.deb")
	says(t, said, "not started, as there is no "+configFile)
	says(t, said, "systemctl enable --now campaign-credsync")
	h.isUnit(t, "inactive", false)
	if h.read(t, "/etc/passwd") != users {
		t.Error("the package changes users")
	}
	if !bytes.Equal(h.document(t), before) {
		t.Error("the package changes the instance's file")
	}

	var secretID string
	h.roleID, secretID = h.vault.MustRole(h.vault.ReadPolicy(container.SecretPath(instance)), time.Hour)
	h.secrets = append(h.secrets, secretID)
	h.config = edited(t, h.read(t, "/etc/campaign-credsync/config.example.yaml"),
		"https://vault.example.com:8200", h.vault.Address,
		"mount: approle ", "mount: "+h.vault.AuthMount+" ",
		"00000000-0000-0000-0000-000000000000", h.roleID,
		"mount: secret ", "mount: "+h.vault.Mount+" ")
	h.configure(t, h.config)
	h.write(t, secretIDFile, secretID+"\n", 0o600)
	version, secret := h.rotate(t)
	h.run(t, "env", "CREDENTIALS_DIRECTORY=/run/credentials/"+unit, "campaign-credsync", "validate")
	began := time.Now()
	h.run(t, "systemctl", "enable", "--now", unit)
	h.awaitApplied(t, version)
	t.Logf("in sync %s after enable --now", time.Since(began).Round(time.Millisecond))
	if !h.holds(t, secret) {
		t.Error("the file does not hold the secret")
	}
	h.runsVersion(t, "1.0.0", "")
}

func testDebUpgrade(t *testing.T, h *host) {
	pid, applies, file := h.awaitApplied(t, 1), h.applies(t), h.document(t)
	h.dpkg(t, "-i", "/root/newer.deb")
	h.runsVersion(t, "1.1.0", pid)
	h.isUnit(t, "active", true)
	if h.applies(t) != applies || !bytes.Equal(h.document(t), file) {
		t.Error("the upgrade forgets what was applied")
	}
}

// testDebUpgradeBadConfiguration: a daemon that works is not replaced by one that would not start.
func testDebUpgradeBadConfiguration(t *testing.T, h *host) {
	pid := h.awaitApplied(t, 1)
	h.configure(t, h.config+"\nno_such_key: 1\n")
	said := h.dpkg(t, "-i", "/root/newer.deb")
	says(t, said, "NOT restarted")
	says(t, said, "no_such_key")
	if got := h.awaitApplied(t, 1); got != pid {
		t.Errorf("process %s became %s", pid, got)
	}
	h.configure(t, h.config)
}

func testDebDowngrade(t *testing.T, h *host) {
	pid, applies := h.awaitApplied(t, 1), h.applies(t)
	const environment = "CREDENTIALS_DIRECTORY=/run/credentials/" + unit
	h.run(t, "env", environment, "campaign-credsync", "pause", "--for", "1h")
	h.dpkg(t, "-i", "--force-downgrade", "/root/older.deb")
	says(t, h.try(t, "campaign-credsync", "status", "--json").stdout, `"state":"paused"`)
	h.run(t, "env", environment, "campaign-credsync", "resume")
	h.runsVersion(t, "1.0.0", pid)
	if h.applies(t) != applies {
		t.Error("the downgrade applies anew")
	}
}

// testScriptsOfRPM runs the scripts with the arguments that rpm gives them: how many versions there are afterwards.
func testScriptsOfRPM(t *testing.T, h *host) {
	for _, script := range []string{"postinstall", "preremove", "postremove"} {
		copyFile(t, filepath.Join(repository(t), "packaging/scripts", script), h.path("/root/"+script))
	}
	pid := h.awaitApplied(t, 1)
	for _, step := range []string{"postinstall 2", "preremove 1", "postremove 1"} { // an upgrade
		h.run(t, "sh", "-c", "/root/"+step)
	}
	pid = h.runsVersion(t, "1.0.0", pid)
	for _, step := range []string{"preremove 0", "postremove 0"} {
		h.run(t, "sh", "-c", "/root/"+step)
	}
	h.isUnit(t, "inactive", false)
	if _, err := os.Stat(h.path(stateDir)); err != nil {
		t.Error(err)
	}
	says(t, h.run(t, "/root/postinstall", "1"), "systemctl enable --now campaign-credsync")
	h.isUnit(t, "inactive", false)
	h.run(t, "systemctl", "enable", "--now", unit)
	h.runsVersion(t, "1.0.0", pid)
}

func testDebRemove(t *testing.T, h *host) {
	applies, file := h.applies(t), h.document(t)
	h.dpkg(t, "-r", "campaign-credsync")
	h.isUnit(t, "inactive", false)
	if got := h.try(t, "systemctl", "is-active", "campaign-credsync-activate.socket"); got.status == 0 {
		t.Errorf("the socket: %v", got)
	}
	for path, stays := range map[string]bool{
		configFile: true, secretIDFile: true, stateDir: true, "/etc/campaign-credsync/config.example.yaml": true,
		"/usr/bin/campaign-credsync": false, "/run/campaign-credsync-activate.sock": false, "/run/campaign-credsync": false,
	} {
		if _, err := os.Lstat(h.path(path)); (err == nil) != stays {
			t.Errorf("after removal, %s is there: %t, want %t", path, !stays, stays)
		}
	}
	if !bytes.Equal(h.document(t), file) {
		t.Error("the removal changes the instance's file")
	}
	says(t, h.dpkg(t, "-i", "/root/newer.deb"), "systemctl enable --now campaign-credsync")
	h.isUnit(t, "inactive", false)
	h.run(t, "systemctl", "enable", "--now", unit)
	h.runsVersion(t, "1.1.0", "")
	if h.applies(t) != applies {
		t.Error("a removal and an installation apply anew")
	}
}

func testDebPurge(t *testing.T, h *host) {
	file := h.document(t)
	h.dpkg(t, "-P", "campaign-credsync")
	h.isUnit(t, "inactive", false)
	for _, path := range []string{"/etc/campaign-credsync", stateDir, "/usr/share/campaign-credsync", "/usr/bin/campaign-credsync"} {
		if _, err := os.Lstat(h.path(path)); err == nil {
			t.Errorf("after the purge there is %s", path)
		}
	}
	if !bytes.Equal(h.document(t), file) {
		t.Error("the purge changes the instance's file")
	}
	h.run(t, "id", "neolane")
}
