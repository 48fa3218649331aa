//go:build systemd

package systemd

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// mostExposed is the highest exposure level that systemd may find in the unit as it runs, of 10.
const mostExposed = 1.4

func testExposure(t *testing.T, h *host) {
	report := h.run(t, "systemd-analyze", "security", "--no-pager", unit)
	found := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(report)
	if found == nil {
		t.Fatalf("no level in\n%s", report)
	}
	level, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("exposure level %.1f", level)
	if level > mostExposed {
		t.Errorf("exposure level %.1f, want at most %.1f:\n%s", level, mostExposed, report)
	}
}

const dropIns = "/etc/systemd/system/" + unit + ".d/"

// testNotifyReload tries notify-reload.conf: for real where the container's systemd knows notify-reload, else only that
// an older systemd finds nothing wrong with it but the two things it cannot know.
func testNotifyReload(t *testing.T, h *host) {
	dropIn, err := outside(t, "cat", "packaging/systemd/notify-reload.conf")
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, dropIns+"notify-reload.conf", dropIn, 0o644)
	defer func() {
		h.run(t, "rm", h.dropIn("notify-reload.conf"))
		h.run(t, "systemctl", "daemon-reload")
	}()
	said := h.try(t, "systemd-analyze", "verify", unit)
	var complaints []string
	for line := range strings.Lines(said.stderr) {
		if strings.Contains(line, "campaign-credsync") {
			complaints = append(complaints, strings.TrimSpace(line))
		}
	}
	if h.systemdVersion(t) < 253 {
		t.Logf("systemd %d does not know notify-reload, so it is not tried; systemd-analyze verify says of the drop-in: %q",
			h.systemdVersion(t), complaints)
		for _, line := range complaints {
			if !strings.Contains(line, "notify-reload.conf:") || !strings.Contains(line, "notify-reload") && !strings.Contains(line, "ReloadSignal") {
				t.Errorf("systemd-analyze verify: %s", line)
			}
		}
		if len(complaints) != 2 {
			t.Errorf("%d complaints, want two: of the type and of ReloadSignal", len(complaints))
		}
		return
	}
	for _, line := range complaints {
		t.Errorf("systemd-analyze verify: %s", line)
	}
	h.run(t, "systemctl", "daemon-reload")
	h.run(t, "systemctl", "restart", unit)
	before := h.show(t)
	if before["Type"] != "notify-reload" || !strings.Contains(before["ExecReload"], "validate") {
		t.Fatalf("Type=%s ExecReload=%s", before["Type"], before["ExecReload"])
	}
	mark := h.journalEnd(t)
	h.run(t, "systemctl", "reload", unit)
	// No waiting here: that the new configuration is in use when reload returns is what notify-reload is for.
	if said := h.journal(t, mark); !strings.Contains(said, "configuration reloaded") {
		h.run(t, "journalctl", "--sync")
		if said = h.journal(t, mark); !strings.Contains(said, "configuration reloaded") {
			t.Errorf("reload has returned and the journal says %q", said)
		}
	}
	h.brokenReload(t)
	h.configure(t, h.config)
	h.run(t, "systemctl", "reload", unit)
	h.run(t, "campaign-credsync", "status") // which a good reload has put right
	if after := h.show(t); !h.active(after) || after["MainPID"] != before["MainPID"] {
		t.Errorf("after the reload the unit is %s (%s), process %s instead of %s", after["ActiveState"], after["SubState"],
			after["MainPID"], before["MainPID"])
	}
}

func (h *host) dropIn(name string) string { return dropIns + name }

func (h *host) systemdVersion(t *testing.T) int {
	t.Helper()
	version, err := strconv.Atoi(strings.Fields(h.run(t, "systemctl", "--version"))[1])
	if err != nil {
		t.Fatal(err)
	}
	return version
}
