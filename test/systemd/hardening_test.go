//go:build systemd

package systemd

import (
	"strings"
	"testing"
)

// testOwnTemporaryFiles has the environment script, which runs where nlserver does, set a limit and make a file in /tmp: it works in the
// sandbox, and the file is nowhere else. With direct.conf, for modules that stay in the unit, it is in the real /tmp.
func testOwnTemporaryFiles(t *testing.T, h *host) {
	const customer, made = campaignHome + "/customer.sh", "/usr/local/neolane/made"
	h.write(t, customer, `ulimit -S -n 1000 && touch "/tmp/by-$(ulimit -n)" && umask >`+made+"\n", 0o644)
	rotate := func() (umask string) {
		h.run(t, "rm", "-f", made)
		version, _ := h.rotate(t)
		h.awaitApplied(t, version)
		return strings.TrimSpace(h.run(t, "cat", made))
	}
	inTmp := func() bool { return h.try(t, "test", "-e", "/tmp/by-1000").status == 0 }
	if umask := rotate(); umask != "0077" || inTmp() {
		t.Errorf("umask %s; in the real /tmp: %t", umask, inTmp())
	}

	direct, err := outside(t, "cat", "packaging/systemd/direct.conf")
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, h.dropIn("direct.conf"), direct, 0o644)
	defer func() {
		h.run(t, "rm", "-f", customer, made, "/tmp/by-1000", h.dropIn("direct.conf"))
		h.run(t, "systemctl", "daemon-reload")
		h.run(t, "systemctl", "restart", unit)
		h.awaitApplied(t, 1)
	}()
	for line := range strings.Lines(h.try(t, "systemd-analyze", "verify", unit).stderr) {
		if strings.Contains(line, "campaign-credsync") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	h.run(t, "systemctl", "daemon-reload")
	h.run(t, "systemctl", "restart", unit)
	if umask := rotate(); umask != "0022" || !inTmp() {
		t.Errorf("with direct.conf: umask %s; in the real /tmp: %t", umask, inTmp())
	}
}
