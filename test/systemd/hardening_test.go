//go:build systemd

package systemd

import (
	"strings"
	"testing"
)

// testOwnTemporaryFiles has the environment script, which runs where nlserver does, set a limit and tell of its surroundings. An apply has a
// /tmp of its own; with direct.conf, for modules that stay in the unit, it has the real one. Activation always has.
func testOwnTemporaryFiles(t *testing.T, h *host) {
	const customer, told = campaignHome + "/customer.sh", "/usr/local/neolane/told"
	h.write(t, customer, `ulimit -S -n 1000 && echo "umask $(umask), limit $(ulimit -n), /tmp $(stat --format=%d:%i /tmp)" >>`+told+"\n", 0o644)
	theirs := "umask 0022, limit 1000, /tmp " + h.run(t, "stat", "--format=%d:%i", "/tmp")
	runs := func() (inside, outside int) {
		h.run(t, "rm", "-f", told)
		version, _ := h.rotate(t)
		h.awaitApplied(t, version)
		for line := range strings.Lines(h.run(t, "cat", told)) {
			switch {
			case line == theirs:
				outside++
			case strings.HasPrefix(line, "umask 0077, limit 1000, /tmp ") && strings.TrimPrefix(line, "umask 0077") != strings.TrimPrefix(theirs, "umask 0022"):
				inside++
			default:
				t.Errorf("it tells %s, the machine has %s", line, theirs)
			}
		}
		return inside, outside
	}
	if inside, outside := runs(); inside == 0 || outside == 0 {
		t.Errorf("%d runs with a /tmp of their own, %d with the real one", inside, outside)
	}

	direct, err := outside(t, "cat", "packaging/systemd/direct.conf")
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, h.dropIn("direct.conf"), direct, 0o644)
	defer func() {
		h.run(t, "rm", "-f", customer, told, h.dropIn("direct.conf"))
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
	if inside, outside := runs(); inside != 0 || outside == 0 {
		t.Errorf("with direct.conf, %d runs with a /tmp of their own, %d with the real one", inside, outside)
	}
}
