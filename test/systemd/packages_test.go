//go:build systemd

package systemd

import (
	"bytes"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
)

// TestPackages takes the deb through its life: install, configure, upgrade, downgrade, remove, install again, purge; and through what
// may be in the way of that.
func TestPackages(t *testing.T) {
	t.Setenv("VAULT_ADDR", "")
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("VAULT_NAMESPACE", "")
	requireTools(t)
	older, newer := buildDeb(t, unpackagedSource(t), "1.0.0"), buildDeb(t, repository(t), "1.1.0")
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
		{"upgrade with a bad configuration", testDebUpgradeBadConfiguration},
		{"upgrade with a configuration that neolane may not read", testDebUpgradeUnreadable},
		{"downgrade while paused", testDebDowngrade},
		{"upgrade", testDebUpgrade},
		{"downgrade while nlserver writes", testDebWhileWriting},
		{"upgrade that cannot start", testDebUpgradeCannotStart},
		{"downgrade while held", testDebHeld},
		{"upgrade while systemd does not answer", testDebWithoutSystemctl},
		{"downgrade with state_dir full", testDebFullState},
		{"upgrade with /usr full", testDebFullUsr},
		{"remove and install again", testDebRemove},
		{"purge with a copy that may be the only one", testDebPurgeKeepsCopy},
		{"purge", testDebPurge},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(t, h) }) {
			t.FailNow() // each begins where the one before ended
		}
	}
}

// unpackaged is the last commit without packages: the oldest program from which a host may come.
const unpackaged = "cbec487d5374af1c95b4a504247883c867762169"

// unpackagedSource returns a directory with the sources of unpackaged, and with what makes packages today.
func unpackagedSource(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	out, err := outside(t, "bash", "-euo", "pipefail", "-c", `
		git cat-file -e "$1^{commit}" 2>/dev/null || git fetch --quiet --unshallow
		git archive "$1" | tar -x -C "$2"
		rm "$2/Makefile"
		tar -c Makefile packaging | tar -x -C "$2" --skip-old-files`, "bash", unpackaged, dir)
	if err != nil {
		t.Fatalf("the sources of %s: %v\n%s", unpackaged, err, out)
	}
	return dir
}

// buildDeb returns the deb of a version, made from source.
func buildDeb(t *testing.T, source, version string) string {
	t.Helper()
	return filepath.Join(buildPackage(t, source, version, "deb"), "campaign-credsync_"+version+"-1_"+runtime.GOARCH+".deb")
}

// buildPackage returns the directory with the package of a version and format, for this machine.
func buildPackage(t *testing.T, source, version, format string) (dist string) {
	t.Helper()
	dist = t.TempDir()
	out, err := outside(t, "make", "-C", source, "package", "DIST="+dist, "FORMATS="+format, "ARCHES="+runtime.GOARCH, "VERSION=v"+version, "PACKAGE_VERSION="+version)
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(out, 20))
	}
	return dist
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

// installs installs a deb over another one, older or newer.
func (h *host) installs(t *testing.T, deb string) (said string) {
	t.Helper()
	return h.dpkg(t, "-i", "--force-downgrade", "/root/"+deb+".deb")
}

// isInstalled fails the test unless dpkg has finished with this version.
func (h *host) isInstalled(t *testing.T, version string) {
	t.Helper()
	if got := h.run(t, "dpkg-query", "-W", "-f", "${Status} ${Version}", "campaign-credsync"); got != "install ok installed "+version+"-1" {
		t.Errorf("dpkg has %s, want %s", got, version)
	}
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

// configureAsShipped writes a configuration that follows the example, and the secret-id.
func (h *host) configureAsShipped(t *testing.T) {
	t.Helper()
	var secretID string
	h.roleID, secretID = h.vault.MustRole(h.vault.ReadPolicy(container.SecretPath(instance)), time.Hour)
	h.secrets = append(h.secrets, secretID)
	h.config = edited(t, h.read(t, "/etc/campaign-credsync/config.example.yaml"),
		"poll: 30s ", "poll: 1s ",
		"https://vault.example.com:8200", h.vault.Address,
		"mount: approle ", "mount: "+h.vault.AuthMount+" ",
		"00000000-0000-0000-0000-000000000000", h.roleID,
		"mount: secret ", "mount: "+h.vault.Mount+" ")
	h.configure(t, h.config)
	h.write(t, secretIDFile, secretID+"\n", 0o600)
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

	h.configureAsShipped(t)
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
	h.installs(t, "newer")
	h.runsVersion(t, "1.1.0", pid)
	h.isUnit(t, "active", true)
	if h.applies(t) != applies || !bytes.Equal(h.document(t), file) {
		t.Error("the upgrade forgets what was applied")
	}
}

// testDebUpgradeBadConfiguration: a daemon that works is not replaced by one that would not start, and goes on to apply.
func testDebUpgradeBadConfiguration(t *testing.T, h *host) {
	pid := h.awaitApplied(t, 1)
	h.configure(t, h.config+"\nno_such_key: 1\n")
	said := h.installs(t, "newer")
	says(t, said, "NOT restarted")
	says(t, said, "no_such_key")
	h.isInstalled(t, "1.1.0")
	version, secret := h.rotate(t)
	if got := h.awaitApplied(t, version); got != pid || !h.holds(t, secret) {
		t.Errorf("process %s became %s", pid, got)
	}
	says(t, h.run(t, "campaign-credsync", "status", "--json"), `"version":"v1.0.0"`)
	h.configure(t, h.config)
	h.run(t, "systemctl", "restart", unit) // as it said
	h.runsVersion(t, "1.1.0", pid)
}

// testDebUpgradeUnreadable: root may read what the daemon's user may not. What the daemon has in its environment, such as a proxy with a
// password, is in no argument of a program.
func testDebUpgradeUnreadable(t *testing.T, h *host) {
	const password = "proxy-password"
	h.write(t, "/etc/systemd/system/"+unit+".d/proxy.conf", "[Service]\nEnvironment=\"HTTPS_PROXY=http://it's:"+password+"@127.0.0.1:1\" \"TWO=a\\nb\" NO_PROXY=*\n", 0o600)
	h.run(t, "systemctl", "daemon-reload")
	h.run(t, "systemctl", "restart", unit)
	pid := h.awaitApplied(t, 1)
	programs := []string{"xargs", "env", "sh", "sed", "tr", "runuser", "stat", "cat"}
	for _, program := range programs {
		h.write(t, "/usr/local/bin/"+program, "#!/bin/bash\nprintf '%s\\n' \"$0\" \"$@\" >>/run/arguments\nexec "+
			strings.TrimSpace(h.run(t, "readlink", "-f", strings.TrimSpace(h.run(t, "which", program))))+" \"$@\"\n", 0o755)
	}
	h.run(t, "touch", "/run/arguments")
	h.run(t, "chmod", "0666", "/run/arguments")
	h.run(t, "chown", "root:root", configFile)
	said := h.installs(t, "older")
	says(t, said, "NOT restarted")
	says(t, said, "permission denied")
	if got := h.awaitApplied(t, 1); got != pid {
		t.Errorf("process %s became %s", pid, got)
	}
	h.run(t, "chgrp", "neolane", configFile)
	h.installs(t, "newer")
	h.runsVersion(t, "1.1.0", pid)

	used := h.read(t, "/run/arguments")
	says(t, used, "/usr/local/bin/")
	if strings.Contains(used, password) {
		t.Errorf("the environment of the daemon is in arguments:\n%s", used)
	}
	for _, program := range append(programs, "../../../run/arguments") {
		h.run(t, "/bin/rm", "/usr/local/bin/"+program)
	}
	h.run(t, "rm", "-r", "/etc/systemd/system/"+unit+".d")
	h.run(t, "systemctl", "daemon-reload")
	h.run(t, "systemctl", "restart", unit)
}

func testDebDowngrade(t *testing.T, h *host) {
	pid, applies := h.awaitApplied(t, 1), h.applies(t)
	const environment = "CREDENTIALS_DIRECTORY=/run/credentials/" + unit
	h.run(t, "env", environment, "campaign-credsync", "pause", "--for", "1h")
	h.rotate(t)
	h.installs(t, "older")
	await(t, "the pause", patience, func() bool {
		return strings.Contains(h.try(t, "campaign-credsync", "status", "--json").stdout, `"state":"paused"`)
	})
	h.isInstalled(t, "1.0.0")
	if h.applies(t) != applies {
		t.Error("the downgrade ends the pause")
	}
	h.run(t, "env", environment, "campaign-credsync", "resume")
	h.runsVersion(t, "1.0.0", pid)
	if h.applies(t) != applies+1 {
		t.Errorf("%d applies for one new version", h.applies(t)-applies)
	}
}

// testDebWhileWriting: the package manager waits for an nlserver that writes, which is neither ended nor joined by another.
func testDebWhileWriting(t *testing.T, h *host) {
	pid, seen := h.awaitApplied(t, 1), len(h.runs(t))
	version, secret, run := h.writing(t)
	installs := h.start(t, "dpkg", "-i", "--force-downgrade", "/root/older.deb")
	h.awaitUnit(t, "a unit that stops", func(properties map[string]string) bool { return properties["ActiveState"] == "deactivating" })
	h.release(t)
	if o := installs(); o.status != 0 {
		t.Errorf("dpkg: %v", o)
	}
	sets := 0
	for _, r := range h.runs(t)[seen:] {
		if r.Kind == "set" && r.Event == "end" {
			sets++
			if r.PID != run.PID || r.ExitCode == nil || *r.ExitCode != 0 {
				t.Errorf("a run that is not the first one, or was cut off: %+v", r)
			}
		}
	}
	if sets != 1 || !h.holds(t, secret) {
		t.Errorf("nlserver wrote %d times", sets)
	}
	h.faults(t, "")
	h.awaitApplied(t, version)
	h.runsVersion(t, "1.0.0", pid)
	h.isInstalled(t, "1.0.0")
}

// testDebUpgradeCannotStart: the configuration is good, and yet the new daemon cannot start. That is said, dpkg is content, and systemd
// tries until it works.
func testDebUpgradeCannotStart(t *testing.T, h *host) {
	pid, applies, file := h.awaitApplied(t, 1), h.applies(t), h.document(t)
	other, err := net.Listen("tcp", "127.0.0.1:0") // the container has the network of the machine
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	h.configure(t, edited(t, h.config, `listen: "" `, "listen: "+other.Addr().String()+" "))
	says(t, h.installs(t, "newer"), "the restart failed; systemd tries again every 5 s. See: journalctl -u "+unit)
	h.isInstalled(t, "1.1.0")
	if h.applies(t) != applies || !bytes.Equal(h.document(t), file) {
		t.Error("what was applied changes")
	}
	other.Close()
	h.runsVersion(t, "1.1.0", pid)
	h.configure(t, h.config)
	h.run(t, "systemctl", "restart", unit)
	h.awaitApplied(t, 1)
}

// testDebHeld: a first apply that is held stays so.
func testDebHeld(t *testing.T, h *host) {
	h.awaitApplied(t, 1)
	h.run(t, "systemctl", "stop", unit)
	h.run(t, "rm", stateDir+"/"+instance+".json")
	h.run(t, "systemctl", "start", unit)
	isHeld := func() {
		t.Helper()
		await(t, "the first apply to be held", patience, func() bool {
			return strings.Contains(h.try(t, "campaign-credsync", "status", "--json").stdout, `"state":"held"`)
		})
	}
	isHeld()
	applies, file := h.applies(t), h.document(t)
	h.installs(t, "older")
	isHeld()
	says(t, h.try(t, "campaign-credsync", "status", "--json").stdout, `"version":"v1.0.0"`)
	if h.applies(t) != applies || !bytes.Equal(h.document(t), file) {
		t.Error("the downgrade applies what was held")
	}
	h.run(t, "env", "CREDENTIALS_DIRECTORY=/run/credentials/"+unit, "campaign-credsync", "adopt")
	h.runsVersion(t, "1.0.0", "")
}

// testDebWithoutSystemctl: dpkg is not left with half of a package because systemd does not answer.
func testDebWithoutSystemctl(t *testing.T, h *host) {
	pid := h.awaitApplied(t, 1)
	h.write(t, "/usr/local/bin/systemctl", "#!/bin/sh\necho 'Failed to reload daemon: Connection timed out' >&2\nexit 1\n", 0o755)
	said := h.installs(t, "newer")
	h.run(t, "rm", "/usr/local/bin/systemctl")
	says(t, said, "NOT restarted: systemd does not answer")
	h.isInstalled(t, "1.1.0")
	if got := h.awaitApplied(t, 1); got != pid {
		t.Errorf("process %s became %s", pid, got)
	}
	h.run(t, "sh", "-c", "systemctl daemon-reload && systemctl restart campaign-credsync-activate.socket "+unit) // as it said
	h.runsVersion(t, "1.1.0", pid)
}
