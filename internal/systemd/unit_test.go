package systemd

import (
	"os/exec"
	"testing"

	"campaign-credsync/test/skip"
)

// TestUnitExposure: the sandbox of the unit does not erode. The threshold is ten times systemd's exposure level.
func TestUnitExposure(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		skip.Unable(t, "systemd-analyze is not installed")
	}
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=14", "--no-pager",
		"../../packaging/systemd/campaign-credsync.service").CombinedOutput()
	if err != nil {
		t.Errorf("more exposed than 1.4: %v\n%s", err, out)
	}
}
