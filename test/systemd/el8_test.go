//go:build systemd

package systemd

import (
	"strings"
	"testing"
)

// testUnitForOldSystemd runs the unit for RHEL 8, whose systemd 239 has no LoadCredential=: neolane reads the secret-id from a file, and a
// new one is used without a restart of the unit.
func testUnitForOldSystemd(t *testing.T, h *host) {
	const unitFile, login = "/usr/lib/systemd/system/" + unit, "/etc/campaign-credsync/login"
	ordinary, secretID := h.read(t, unitFile), h.read(t, secretIDFile)
	old, err := outside(t, "cat", "packaging/systemd/el8/campaign-credsync.service")
	if err != nil {
		t.Fatal(err)
	}
	install := func(secretID string) {
		h.write(t, login+"/secret_id.new", secretID, 0o640)
		h.run(t, "chgrp", "neolane", login, login+"/secret_id.new")
		h.run(t, "chmod", "0750", login)
		h.run(t, "mv", login+"/secret_id.new", login+"/secret_id")
	}
	install(secretID)
	h.write(t, unitFile, old, 0o644)
	h.run(t, "rm", secretIDFile)
	defer func() {
		h.write(t, unitFile, ordinary, 0o644)
		h.write(t, secretIDFile, secretID, 0o600)
		h.run(t, "rm", "-r", login)
		h.run(t, "systemctl", "daemon-reload")
		h.run(t, "systemctl", "restart", unit)
		h.awaitApplied(t, 1)
	}()
	h.run(t, "systemctl", "daemon-reload")
	for line := range strings.Lines(h.try(t, "systemd-analyze", "verify", unit).stderr) {
		if strings.Contains(line, "campaign-credsync") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	mark := h.journalEnd(t)
	h.run(t, "systemctl", "restart", unit)
	version, secret := h.rotate(t)
	pid := h.awaitApplied(t, version)
	if !h.holds(t, secret) {
		t.Error("the new secret is not in the file")
	}
	if o := h.try(t, "runuser", "-u", "nobody", "--", "cat", login+"/secret_id"); o.status == 0 {
		t.Error("nobody can read the secret-id")
	}

	secretID = h.vault.MustSecretID(h.roleID) + "\n"
	h.secrets = append(h.secrets, strings.TrimSpace(secretID))
	install(secretID)
	h.vault.MustRevokeRoleTokens(h.roleID)
	version, _ = h.rotate(t)
	if again := h.awaitApplied(t, version); again != pid {
		t.Errorf("process %s became %s", pid, again)
	}
	h.reconfigure(t, "poll: 1s", "poll: 2s")
	h.reconfigure(t, "poll: 2s", "poll: 1s")
	h.noWarnings(t, mark)
	h.brokenReload(t)
	h.configure(t, h.config)
	h.run(t, "systemctl", "reload", unit)
	h.run(t, "campaign-credsync", "status")
}
