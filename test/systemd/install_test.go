//go:build systemd

package systemd

import (
	"os"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
)

// testInstall follows the instructions for operators, with the example configuration, and leaves a unit that polls only
// once an hour: what is found earlier in later parts was not found by a lucky poll.
func testInstall(t *testing.T, h *host) {
	image := t.TempDir()
	for _, step := range [][]string{
		{"make", "install", "DESTDIR=" + image},
		{"cp", "-r", image + "/.", h.path("/")},
	} {
		if out, err := outside(t, step...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var secretID string
	h.roleID, secretID = h.vault.MustRole(h.vault.ReadPolicy(container.SecretPath(instance)), time.Hour)
	h.secrets = append(h.secrets, secretID)
	h.config = edited(t, h.read(t, "/etc/campaign-credsync/config.example.yaml"),
		"https://vault.example.com:8200", h.vault.Address,
		"mount: approle ", "mount: "+h.vault.AuthMount+" ",
		"00000000-0000-0000-0000-000000000000", h.roleID,
		"mount: secret ", "mount: "+h.vault.Mount+" ",
		"poll: 30s", "poll: 1h")
	h.configure(t, h.config)
	h.write(t, secretIDFile, secretID+"\n", 0o600)
	before := h.rights(t, instanceFile)
	version, secret := h.rotate(t)

	h.run(t, "env", "CREDENTIALS_DIRECTORY=/run/credentials/"+unit, "campaign-credsync", "validate")
	h.run(t, "systemctl", "daemon-reload")

	// systemd is happy with the unit, and tells nothing about another's.
	for line := range strings.Lines(h.try(t, "systemd-analyze", "verify", unit).stderr) {
		if strings.Contains(line, "campaign-credsync") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}

	// nlserver takes its time, so that there is something to see between the start and being ready.
	h.faults(t, `{"write_delay":"10m","times":1}`)
	began := time.Now()
	enabled := h.start(t, "systemctl", "enable", "--now", unit)
	h.awaitRun(t, "nlserver to write", 0, func(r nlserverRun) bool { return r.Event == "waiting" })
	if got := h.show(t); got["ActiveState"] != "activating" || got["SubState"] != "start" {
		t.Errorf("while nlserver writes the unit is %s (%s), want activating (start)", got["ActiveState"], got["SubState"])
	}
	h.release(t)
	if o := enabled(); o.status != 0 {
		t.Fatalf("enable --now: %v", o)
	}
	t.Logf("active %s after the start", time.Since(began).Round(time.Millisecond))
	h.faults(t, "")
	if !h.holds(t, secret) {
		t.Error("the unit is active and the file does not hold the secret")
	}
	properties := h.show(t)
	for key, want := range map[string]string{
		"ActiveState": "active", "SubState": "running", "UnitFileState": "enabled", "Type": "notify",
		"StatusText": "1 of 1 instances in sync", "NRestarts": "0",
	} {
		if properties[key] != want {
			t.Errorf("%s is %q, want %q", key, properties[key], want)
		}
	}
	if pid := h.awaitApplied(t, version); pid == "0" {
		t.Error("systemd does not know the daemon's process")
	}
	h.run(t, "campaign-credsync", "status") // as root, without the variables that systemd sets for the unit

	if after := h.rights(t, instanceFile); after != before || !strings.HasPrefix(after, "neolane:neolane ") {
		t.Errorf("owner and mode of the instance's file: %s, before %s", after, before)
	}
	if owner := h.rights(t, runLog); !strings.HasPrefix(owner, "neolane:neolane ") {
		t.Errorf("nlserver wrote its log as %s", owner)
	}
	kinds := map[string]int{}
	for _, r := range h.runs(t) {
		if !r.EnvOK {
			t.Errorf("nlserver ran without the environment of env.sh: %+v", r)
		}
		if r.Event == "end" {
			kinds[r.Kind]++
		}
	}
	if kinds["set"] != 1 || kinds["reload"] != 1 {
		t.Errorf("runs of nlserver by kind: %v, want one set and one reload", kinds)
	}
	if mode := h.rights(t, secretIDFile); mode != "root:root 600" {
		t.Errorf("the secret-id belongs to %s", mode)
	}
	h.noWarnings(t, "")
}

// testSandbox looks at the process as the kernel has it.
func testSandbox(t *testing.T, h *host) {
	pid := h.awaitApplied(t, 1)
	status := h.run(t, "cat", "/proc/"+pid+"/status")
	uid := strings.TrimSpace(h.run(t, "id", "-u", "neolane"))
	for name, want := range map[string]string{
		"NoNewPrivs:": "1", "Seccomp:": "2",
		"CapInh:": "0000000000000000", "CapPrm:": "0000000000000000", "CapEff:": "0000000000000000",
		"CapBnd:": "0000000000000000", "CapAmb:": "0000000000000000",
		"Uid:": strings.Join([]string{uid, uid, uid, uid}, "\t"),
	} {
		if got := field(status, name); got != want {
			t.Errorf("%s %q of the daemon, want %q", name, got, want)
		}
	}
	limit := strings.Fields(field(h.run(t, "cat", "/proc/"+pid+"/limits"), "Max core file size"))
	if len(limit) < 2 || limit[0] != "0" || limit[1] != "0" {
		t.Errorf("core files are limited to %v, want 0 0", limit)
	}
	for path, want := range map[string]string{
		stateDir:                              "neolane:neolane 700",
		"/run/campaign-credsync":              "neolane:neolane 755",
		"/run/campaign-credsync/control.sock": "neolane:neolane 600",
	} {
		if got := h.rights(t, path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}

	// Newer versions of systemd give it to the user by an access control list, so the mode says little.
	for user, want := range map[string]bool{"neolane": true, "nobody": false} {
		got := h.try(t, "runuser", "-u", user, "--", "cat", "/run/credentials/"+unit+"/secret_id")
		if (got.status == 0) != want {
			t.Errorf("%s can read the secret-id: %t, want %t", user, !want, want)
		}
	}

	// Seen from the daemon's mount namespace: read-only but for Campaign, its own directories and the temporary ones.
	writable := map[string]bool{
		campaignHome + "/conf": true, stateDir: true, "/run/campaign-credsync": true, "/tmp": true, "/var/tmp": true,
		"/etc": false, "/usr/local/bin": false, "/usr/lib": false, "/var/lib": false, "/var/log": false, "/root": false,
	}
	for dir, want := range writable {
		probe := []string{"nsenter", "--target", pid, "--mount", "sh", "-c", `: >"$0/.probe" && rm "$0/.probe"`, dir}
		if got := h.try(t, probe...); (got.status == 0) != want {
			t.Errorf("in the sandbox, writable %s: %t, want %t: %v", dir, !want, want, got)
		}
	}
	if _, err := os.Stat(h.path("/etc/.probe")); err == nil {
		t.Error("the probe stays")
	}
}
