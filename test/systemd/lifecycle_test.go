//go:build systemd

package systemd

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// testWatchdog stops the daemon so that it feeds the watchdog no more.
func testWatchdog(t *testing.T, h *host) {
	if got := h.show(t)["WatchdogUSec"]; got != "1min" {
		t.Errorf("WatchdogUSec is %s, want the unit's 1min", got)
	}
	h.write(t, h.dropIn("watchdog.conf"), "[Service]\nWatchdogSec=3s\n", 0o644)
	defer func() { // it goes on until the next start of the daemon
		h.run(t, "rm", h.dropIn("watchdog.conf"))
		h.run(t, "systemctl", "daemon-reload")
		h.run(t, "systemctl", "restart", unit)
	}()
	h.run(t, "systemctl", "daemon-reload")
	h.run(t, "systemctl", "restart", unit)
	pid := h.awaitApplied(t, 1)
	before := h.show(t)
	if before["WatchdogUSec"] != "3s" {
		t.Fatalf("WatchdogUSec is %s with the drop-in", before["WatchdogUSec"])
	}
	// Fed well for longer than the limit; systemd's own record of the last meal tells.
	fed := before["WatchdogTimestampMonotonic"]
	h.awaitUnit(t, "three meals of the watchdog", func(properties map[string]string) bool {
		return microseconds(t, properties["WatchdogTimestampMonotonic"])-microseconds(t, fed) > 3_000_000
	})
	if now := h.show(t); now["MainPID"] != pid || now["NRestarts"] != before["NRestarts"] {
		t.Fatalf("restarted without a reason: %s restarts, before %s", now["NRestarts"], before["NRestarts"])
	}

	mark := h.journalEnd(t)
	began := time.Now()
	h.run(t, "sh", "-c", "kill -STOP "+pid)
	h.awaitJournal(t, mark, "Watchdog timeout")
	t.Logf("found stopped after %s", time.Since(began).Round(100*time.Millisecond))
	h.awaitUnit(t, "a restart", func(properties map[string]string) bool {
		return h.active(properties) && properties["MainPID"] != pid
	})
	t.Logf("active again after %s", time.Since(began).Round(100*time.Millisecond))
	h.awaitApplied(t, 1)
}

func microseconds(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// testReload goes from a poll an hour to one a second.
func testReload(t *testing.T, h *host) {
	pid := h.awaitApplied(t, 1)
	mark := h.journalEnd(t)
	h.reconfigure(t, "poll: 1h", "poll: 1s")
	if got := h.awaitUnit(t, "an active unit", h.active); got["MainPID"] != pid {
		t.Errorf("process %s became %s", pid, got["MainPID"])
	}
	// The first version after the reload may be found by the check that goes with it, the second is found by a poll.
	for range 2 {
		version, secret := h.rotate(t)
		h.awaitApplied(t, version)
		if !h.holds(t, secret) {
			t.Errorf("version %d is said to be applied and the file does not hold it", version)
		}
	}
	h.noWarnings(t, mark)
}

// testBrokenReload: a reload with a bad configuration fails, the old one is kept, and status tells so until a good one comes.
func testBrokenReload(t *testing.T, h *host) {
	pid := h.awaitApplied(t, 1)
	h.brokenReload(t)
	if got := h.awaitUnit(t, "an active unit", h.active); got["MainPID"] != pid {
		t.Errorf("process %s became %s", pid, got["MainPID"])
	}
	version, _ := h.rotate(t)
	h.awaitApplied(t, version)

	h.configure(t, h.config)
	mark := h.journalEnd(t)
	h.run(t, "systemctl", "reload", unit)
	h.awaitJournal(t, mark, "configuration reloaded")
	h.run(t, "campaign-credsync", "status")
}

// brokenReload leaves a bad configuration in place.
func (h *host) brokenReload(t *testing.T) {
	t.Helper()
	h.configure(t, h.config+"\nno_such_key: 1\n")
	mark := h.journalEnd(t)
	if o := h.try(t, "systemctl", "reload", unit); o.status == 0 {
		t.Errorf("systemctl reload succeeds: %v", o)
	}
	said := h.awaitJournal(t, mark, "configuration not reloaded")
	where := fmt.Sprintf("%s:%d:1:", configFile, strings.Count(h.config, "\n")+2)
	if !strings.Contains(said, where) || !strings.Contains(said, "no_such_key") || !strings.Contains(said, "level=ERROR") {
		t.Errorf("%s, which does not tell %s", said, where)
	}
	if o := h.try(t, "campaign-credsync", "status"); o.status != 3 || !strings.Contains(o.stdout, "warning reload_rejected") {
		t.Errorf("status: %v", o)
	}
}

// testControlGroup: with the packaged unit, a member of control_group reaches the socket, and another user does not.
func testControlGroup(t *testing.T, h *host) {
	h.run(t, "groupadd", "watchers")
	h.run(t, "usermod", "-a", "-G", "watchers", "neolane")
	h.run(t, "useradd", "--system", "--no-create-home", "--groups", "watchers", "watcher")
	h.configure(t, edited(t, h.config, `control_group: "" `, "control_group: watchers "))
	h.run(t, "systemctl", "restart", unit)
	h.awaitApplied(t, 1)
	if got := h.rights(t, "/run/campaign-credsync/control.sock"); got != "neolane:watchers 660" {
		t.Errorf("the socket: %s", got)
	}
	// None of them may read the configuration.
	for _, c := range []struct {
		user, command, says string
		status              int
	}{
		{"watcher", "status", "in_sync", 0}, {"watcher", "history", "started", 0},
		{"watcher", "sync", "not for members of control_group; run it with sudo", 4}, {"watcher", "adopt", "run it with sudo", 4},
		{"nobody", "status", "run it with sudo, or join control_group", 4}, {"nobody", "sync", "run it with sudo, or join control_group", 4},
	} {
		o := h.try(t, "runuser", "-u", c.user, "--", "campaign-credsync", c.command)
		if o.status != c.status || !strings.Contains(o.stdout+o.stderr, c.says) {
			t.Errorf("%s, %s: want %d and %q: %v", c.user, c.command, c.status, c.says, o)
		}
	}
	h.configure(t, h.config)
	h.run(t, "systemctl", "restart", unit)
	h.awaitApplied(t, 1)
}

// testJournalFields: journalctl finds entries by what they are about, and by how much they need a person.
func testJournalFields(t *testing.T, h *host) {
	h.awaitApplied(t, 1)
	h.brokenReload(t)
	h.configure(t, h.config)
	h.run(t, "systemctl", "reload", unit)
	version, _ := h.rotate(t)
	h.awaitApplied(t, version)
	h.run(t, "journalctl", "--sync")
	// No mark here: see journalEnd.
	for line := range strings.Lines(h.journal(t, "", "-p", "err")) {
		if strings.HasPrefix(line, "level=") && !strings.HasPrefix(line, "level=ERROR ") {
			t.Errorf("no error: %s", line)
		}
	}
	if errors := h.journal(t, "", "-p", "err"); !strings.Contains(errors, "level=ERROR configuration not reloaded") {
		t.Errorf("the errors are: %s", errors)
	}
	ofInstance := h.journal(t, "", "INSTANCE="+instance)
	applied := fmt.Sprintf("level=INFO credential applied instance=%s version=%d", instance, version)
	if !strings.Contains(ofInstance, applied) || strings.Contains(ofInstance, "configuration not reloaded") {
		t.Errorf("of the instance, want %q: %s", applied, ofInstance)
	}
}

// testStop: a stopped unit leaves no token behind.
func testStop(t *testing.T, h *host) {
	// Those that were killed in earlier parts could not revoke theirs.
	h.run(t, "systemctl", "restart", unit)
	h.vault.MustRevokeRoleTokens(h.roleID)
	h.run(t, "systemctl", "restart", unit)
	h.awaitApplied(t, 1)
	if n := h.vault.MustRoleTokens(h.roleID); n != 1 {
		t.Fatalf("%d tokens of the role while the daemon runs, want 1", n)
	}
	mark := h.journalEnd(t)
	began := time.Now()
	h.run(t, "systemctl", "stop", unit)
	t.Logf("stopped in %s", time.Since(began).Round(time.Millisecond))
	h.stoppedWell(t)
	if n := h.vault.MustRoleTokens(h.roleID); n != 0 {
		t.Errorf("%d tokens of the role after the stop", n)
	}
	h.noWarnings(t, mark)
	h.run(t, "systemctl", "start", unit)
	h.awaitApplied(t, 1)
}

// stoppedWell fails the test unless the unit ended by itself, with status 0.
func (h *host) stoppedWell(t *testing.T) {
	t.Helper()
	properties := h.show(t)
	for key, want := range map[string]string{
		"ActiveState": "inactive", "Result": "success", "ExecMainCode": "1" /* it exited */, "ExecMainStatus": "0",
	} {
		if properties[key] != want {
			t.Errorf("after the stop %s is %s, want %s", key, properties[key], want)
		}
	}
}

// testBadConfiguration makes the commonest mistake, the secret-id itself in place of a file's name.
func testBadConfiguration(t *testing.T, h *host) {
	h.run(t, "systemctl", "stop", unit)
	secretID := strings.TrimSpace(h.read(t, secretIDFile))
	bad := edited(t, h.config, "secret_id_file: ${CREDENTIALS_DIRECTORY}/secret_id", "secret_id: "+secretID)
	line := strings.Count(bad[:strings.Index(bad, "secret_id: "+secretID)], "\n") + 1
	h.configure(t, bad)
	mark := h.journalEnd(t)
	if o := h.try(t, "systemctl", "start", unit); o.status == 0 {
		t.Error("the unit starts with a bad configuration")
	}
	properties := h.show(t)
	if properties["ExecMainCode"] != "1" || properties["ExecMainStatus"] != "2" {
		t.Errorf("the daemon ended with code %s, status %s, want 1 and 2", properties["ExecMainCode"], properties["ExecMainStatus"])
	}
	said := h.awaitJournal(t, mark, fmt.Sprintf("%s:%d:", configFile, line))
	t.Logf("the journal says: %s", said)
	if !strings.Contains(said, "secret_id") || !strings.HasPrefix(said, fmt.Sprintf("level=ERROR %s:%d:5:", configFile, line)) {
		t.Errorf("%s, want the key secret_id at line %d, column 5", said, line)
	}
	if shows(h.journal(t, mark), secretID) {
		t.Error("the journal shows the secret-id")
	}

	// No hand is needed at the unit once the file is right.
	h.configure(t, h.config)
	h.awaitApplied(t, 1)
}
