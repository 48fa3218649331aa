//go:build systemd

package systemd

import (
	"strings"
	"testing"
	"time"
)

// testWrappedSecretID: the unit gets a wrapping token in place of a secret-id. What it unwraps survives restarts of the unit.
// neolane can seal from systemd 256 on, in the sandbox, too; before, the state directory keeps it for neolane only.
func testWrappedSecretID(t *testing.T, h *host) {
	token := h.vault.MustWrappedSecretID(h.roleID, time.Hour)
	h.secrets = append(h.secrets, token)
	h.write(t, secretIDFile, token+"\n", 0o600)
	h.config = edited(t, h.config, "secret_id_wrapped: false", "secret_id_wrapped: true")
	h.configure(t, h.config)
	mark := h.journalEnd(t)
	h.run(t, "systemctl", "restart", unit)
	h.awaitApplied(t, 1)
	said := h.awaitJournal(t, mark, "secret-id unwrapped, and kept in state_dir")
	t.Log(said)
	if sealed := strings.Contains(said, "sealed by systemd-creds"); sealed != (h.systemdVersion(t) >= 256) {
		t.Errorf("sealed is %v with systemd %d", sealed, h.systemdVersion(t))
	}
	if rights := h.rights(t, stateDir+"/secret-id.key"); rights != "neolane:neolane 600" {
		t.Errorf("what is kept belongs to %s", rights)
	}
	h.run(t, "systemctl", "kill", "--signal=KILL", unit)
	version, secret := h.rotate(t)
	h.run(t, "systemctl", "restart", unit)
	h.awaitApplied(t, version)
	if !h.holds(t, secret) {
		t.Error("the new secret is not in the file")
	}
	if n := strings.Count(h.journal(t, mark), "secret-id unwrapped"); n != 1 {
		t.Errorf("unwrapped %d times, want 1", n)
	}
	h.noWarnings(t, mark)
}
