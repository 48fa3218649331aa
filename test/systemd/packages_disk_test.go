//go:build systemd

package systemd

import (
	"bytes"
	"maps"
	"os"
	"strings"
	"testing"
)

// full has a directory be a full disk, until there is room again. unmount ends that disk, and leaves the directory as it was before.
func (h *host) full(t *testing.T, dir string) (room, unmount func()) {
	t.Helper()
	h.run(t, "sh", "-ec", `dir=$1 small=/root/small$1
		mkdir -p "$small"
		mount -t tmpfs -o mode=0755,size=$(($(du -sk "$dir" | cut -f1) + 600))k tmpfs "$small"
		cp -a "$dir/." "$small/"
		mount --bind "$small" "$dir"
		dd if=/dev/zero of="$dir/filling" bs=4k 2>/dev/null && exit 1
		[ -s "$dir/filling" ]`, "sh", dir)
	return func() { t.Helper(); h.run(t, "rm", dir+"/filling") },
		func() { t.Helper(); h.run(t, "umount", "--lazy", dir) }
}

// testDebFullState: without room for state, the other version starts and guards what is applied, and says what it cannot do.
func testDebFullState(t *testing.T, h *host) {
	h.awaitApplied(t, 1)
	h.run(t, "systemctl", "stop", unit)
	applies, file := h.applies(t), h.document(t)
	room, unmount := h.full(t, stateDir)
	h.run(t, "systemctl", "start", unit)
	pid := h.awaitApplied(t, 1)
	h.installs(t, "older")
	h.isInstalled(t, "1.0.0")
	pid = h.runsVersion(t, "1.0.0", pid)
	if h.applies(t) != applies || !bytes.Equal(h.document(t), file) {
		t.Error("what was applied changes")
	}
	_, secret := h.rotate(t)
	await(t, "that the new version cannot be applied is said", patience, func() bool {
		return strings.Contains(h.try(t, "campaign-credsync", "status").stdout, "no space left")
	})
	if h.applies(t) != applies || !bytes.Equal(h.document(t), file) {
		t.Error("nlserver is run without a record of that")
	}
	room()
	await(t, "the new version", patience, func() bool { return h.holds(t, secret) })
	if got := h.runsVersion(t, "1.0.0", ""); got != pid {
		t.Errorf("process %s became %s", pid, got)
	}
	h.run(t, "systemctl", "stop", unit)
	h.run(t, "cp", "-a", stateDir, "/root/state")
	unmount()
	h.run(t, "cp", "-a", "/root/state/.", stateDir+"/")
	h.run(t, "systemctl", "start", unit)
	h.awaitApplied(t, 1)
}

// testDebFullUsr: dpkg fails, says why, keeps the version that was there, and its daemon goes on.
func testDebFullUsr(t *testing.T, h *host) {
	pid := h.awaitApplied(t, 1)
	room, unmount := h.full(t, "/usr/bin")
	o := h.try(t, "dpkg", "-i", "/root/newer.deb")
	if o.status == 0 {
		t.Errorf("dpkg succeeds: %v", o)
	}
	says(t, o.stderr, "No space left on device")
	h.isInstalled(t, "1.0.0")
	says(t, h.run(t, "campaign-credsync", "version"), "v1.0.0")
	version, secret := h.rotate(t)
	if got := h.awaitApplied(t, version); got != pid || !h.holds(t, secret) {
		t.Errorf("process %s became %s", pid, got)
	}
	room()
	unmount()
	h.installs(t, "newer")
	h.runsVersion(t, "1.1.0", pid)
}

func testDebRemove(t *testing.T, h *host) {
	h.isRemoved(t, func() { h.dpkg(t, "-r", "campaign-credsync") }, func() string { return h.dpkg(t, "-i", "/root/newer.deb") }, map[string]bool{
		"/etc/campaign-credsync/config.example.yaml": true, "/run/campaign-credsync": false,
	})
}

// isRemoved removes the package and installs a newer one: what is not the package's stays as it is, and nothing is applied anew. stays
// says of more paths whether they are there in between.
func (h *host) isRemoved(t *testing.T, remove func(), install func() (said string), stays map[string]bool) {
	t.Helper()
	applies, file := h.applies(t), h.document(t)
	remove()
	h.isUnit(t, "inactive", false)
	if got := h.try(t, "systemctl", "is-active", "campaign-credsync-activate.socket"); got.status == 0 {
		t.Errorf("the socket: %v", got)
	}
	maps.Copy(stays, map[string]bool{
		configFile: true, secretIDFile: true, stateDir: true, "/usr/bin/campaign-credsync": false, "/run/campaign-credsync-activate.sock": false,
	})
	for path, stays := range stays {
		if _, err := os.Lstat(h.path(path)); (err == nil) != stays {
			t.Errorf("after the removal, %s is there: %t, want %t", path, !stays, stays)
		}
	}
	if !bytes.Equal(h.document(t), file) {
		t.Error("the removal changes the instance's file")
	}
	says(t, install(), "systemctl enable --now campaign-credsync")
	h.isUnit(t, "inactive", false)
	h.run(t, "systemctl", "enable", "--now", unit)
	h.runsVersion(t, "1.1.0", "")
	if h.applies(t) != applies {
		t.Error("a removal and an installation apply anew")
	}
}

// testDebPurgeKeepsCopy: a daemon was killed while nlserver wrote, and nothing was started since. What the next start would have put back
// stays, and nothing else.
func testDebPurgeKeepsCopy(t *testing.T, h *host) {
	h.run(t, "systemctl", "stop", unit)
	kept := []string{instance + ".before", instance + ".before.path", instance + ".survey.1", instance + ".survey.1.path"}
	for _, name := range kept {
		h.write(t, stateDir+"/"+name, "the only copy", 0o600)
	}
	says(t, h.dpkg(t, "-P", "campaign-credsync"), stateDir+"/"+instance+".before may be the only whole copy")
	for _, name := range kept {
		if got := h.read(t, stateDir+"/"+name); got != "the only copy" {
			t.Errorf("%s is %q", name, got)
		}
	}
	if got := strings.Fields(h.run(t, "ls", stateDir)); len(got) != len(kept) {
		t.Errorf("in the state directory there are %v", got)
	}
	if _, err := os.Lstat(h.path("/etc/campaign-credsync")); err == nil {
		t.Error("the configuration is still there")
	}
	h.run(t, "rm", "-r", stateDir)
	h.dpkg(t, "-i", "/root/newer.deb")
	h.configureAsShipped(t)
	h.run(t, "systemctl", "enable", "--now", unit)
	h.awaitUnit(t, "an active unit", h.active)
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
