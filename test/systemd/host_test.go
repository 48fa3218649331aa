//go:build systemd

package systemd

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
)

const (
	instance     = "prod"
	campaignHome = "/usr/local/neolane/nl6"
	configFile   = "/etc/campaign-credsync/config.yaml"
	secretIDFile = "/etc/campaign-credsync/secret_id"
	stateDir     = "/var/lib/campaign-credsync"
)

// patience bounds every wait: it is for what hangs, and not for what is slow.
const patience = 2 * time.Minute

// host is a Campaign host in a container: user neolane, Campaign's home with the stand-in of nlserver, and a Vault.
type host struct {
	*machine
	neolane string // /usr/local/neolane as seen from outside: a file system on disk, as hosts have it, and not in memory
	standin string // executable, outside
	vault   *vaulttest.Server
	roleID  string
	secrets []string // all that must show nowhere
	config  string   // what is in configFile when nothing is being broken
}

func newHost(t *testing.T) *host {
	// Outside, as its program needs the C library of this machine: the container shares the network.
	return bootHost(t, vaulttest.Start(t), buildStandin(t), rootFileSystem(t))
}

func buildStandin(t *testing.T) (program string) {
	program = filepath.Join(t.TempDir(), "nlserver-standin")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, "./test/nlserver")
	build.Dir, build.Env = repository(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the stand-in: %v\n%s", err, out)
	}
	return program
}

func bootHost(t *testing.T, vault *vaulttest.Server, standin, rootfs string) *host {
	h := &host{neolane: t.TempDir(), standin: standin, vault: vault}
	began := time.Now()
	h.machine = boot(t, rootfs, "--bind="+h.neolane+":/usr/local/neolane")
	version, _, _ := strings.Cut(h.run(t, "systemctl", "--version"), "\n")
	t.Logf("%s as process 1, booted in %s", version, time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("journal of the unit:\n%s", tail(h.try(t, "journalctl", "--no-pager", "-u", unit).stdout, 80))
		}
	})

	h.run(t, "useradd", "--system", "--user-group", "--home-dir", "/usr/local/neolane", "--shell", "/bin/bash", "neolane")
	copyFile(t, h.standin, h.path("/usr/local/sbin/nlserver-standin"))
	h.run(t, "nlserver-standin", "--standin-layout", campaignHome)
	h.run(t, "nlserver-standin", "--standin-instance", campaignHome, instance)
	h.run(t, "chmod", "0755", "/usr/local/neolane")
	h.run(t, "chown", "-R", "neolane:neolane", "/usr/local/neolane")
	return h
}

func repository(t *testing.T) string {
	_, file, _, _ := runtime.Caller(0)
	if !filepath.IsAbs(file) { // built with -trimpath
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(dir, "host_test.go")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

func copyFile(t *testing.T, from, to string) {
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o755); err != nil {
		t.Fatal(err)
	}
}

// rotate writes a new credential to Vault and returns its version and secret.
func (h *host) rotate(t *testing.T) (version int, secret string) {
	t.Helper()
	secret = "p8e-" + (rand.Text() + rand.Text())[:32]
	h.secrets = append(h.secrets, secret)
	return h.vault.MustWrite(container.SecretPath(instance), container.Credential(secret)), secret
}

// edited returns text with each old replaced by its new, and ends the test unless each is there exactly once.
func edited(t *testing.T, text string, oldNew ...string) string {
	t.Helper()
	for i := 0; i < len(oldNew); i += 2 {
		if n := strings.Count(text, oldNew[i]); n != 1 {
			t.Fatalf("%q is there %d times in\n%s", oldNew[i], n, text)
		}
		text = strings.Replace(text, oldNew[i], oldNew[i+1], 1)
	}
	return text
}

// configure puts a configuration in place, as an operator's editor does.
func (h *host) configure(t *testing.T, text string) {
	t.Helper()
	h.write(t, configFile+".new", text, 0o640)
	h.run(t, "chgrp", "neolane", configFile+".new")
	h.run(t, "mv", configFile+".new", configFile)
}

// reconfigure changes h.config for good and has it taken over.
func (h *host) reconfigure(t *testing.T, oldNew ...string) {
	t.Helper()
	h.config = edited(t, h.config, oldNew...)
	h.configure(t, h.config)
	mark := h.journalEnd(t)
	h.run(t, "systemctl", "reload", unit)
	h.awaitJournal(t, mark, "configuration reloaded")
}

// show returns properties of the unit.
func (h *host) show(t *testing.T) map[string]string {
	t.Helper()
	properties := map[string]string{}
	for line := range strings.Lines(h.run(t, "systemctl", "show", unit)) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			properties[key] = value
		}
	}
	return properties
}

// awaitUnit waits until the unit's properties fit, and returns them.
func (h *host) awaitUnit(t *testing.T, what string, fits func(map[string]string) bool) map[string]string {
	t.Helper()
	var properties map[string]string
	await(t, what, patience, func() bool {
		properties = h.show(t)
		return fits(properties)
	})
	return properties
}

func (h *host) active(properties map[string]string) bool {
	return properties["ActiveState"] == "active" && properties["SubState"] == "running"
}

// awaitApplied waits until the daemon says that it is in sync with at least this version, and returns its process id.
func (h *host) awaitApplied(t *testing.T, version int) (pid string) {
	t.Helper()
	var last outcome
	applied := false
	defer func() {
		if !applied {
			t.Logf("last status: %v", last)
		}
	}()
	await(t, "the daemon to be in sync", patience, func() bool {
		last = h.try(t, "campaign-credsync", "status", "--json")
		var status container.Status
		applied = json.Unmarshal([]byte(last.stdout), &status) == nil && status.Applied(version)
		return applied
	})
	return h.awaitUnit(t, "an active unit", h.active)["MainPID"]
}

// settle undoes what a part that failed may have left, so that the next one is not blamed for it.
func (h *host) settle(t *testing.T) {
	h.faults(t, "")
	h.configure(t, h.config)
	h.run(t, "systemctl", "start", unit)
	h.awaitApplied(t, 1)
}

// outsidePath turns a path below /usr/local/neolane into the one that it has outside.
func (h *host) outsidePath(inside string) string {
	return filepath.Join(h.neolane, strings.TrimPrefix(inside, "/usr/local/neolane"))
}

const instanceFile = campaignHome + "/conf/config-" + instance + ".xml"

func (h *host) document(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(h.outsidePath(instanceFile))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// ciphertext is the secret as it stands in the instance's file.
func (h *host) ciphertext(t *testing.T) string {
	t.Helper()
	value, err := container.Attribute(h.document(t), "authIMSTAClientSecret")
	if err != nil {
		return "" // somebody is writing
	}
	return value
}

// holds tells whether the instance's file has the secret.
func (h *host) holds(t *testing.T, secret string) bool {
	t.Helper()
	value := h.ciphertext(t)
	if value == "" {
		return false
	}
	out, err := exec.CommandContext(t.Context(), h.standin, "--standin-decrypt", value).Output()
	return err == nil && strings.TrimSuffix(string(out), "\n") == secret
}

// rights are the owner, group and mode of a file.
func (h *host) rights(t *testing.T, inside string) string {
	t.Helper()
	return strings.TrimSpace(h.run(t, "stat", "--format=%U:%G %a", inside))
}

// nlserverRun is a line of the stand-in's log. Process ids are those inside.
type nlserverRun struct {
	PID      int       `json:"pid"`
	Event    string    `json:"event"` // start, waiting, child, end
	Kind     string    `json:"kind"`
	EnvOK    bool      `json:"env_ok"`
	At       string    `json:"at"`
	ChildPID int       `json:"child_pid"`
	ExitCode *int      `json:"exit_code"`
	Time     time.Time `json:"time"`
}

const runLog = campaignHome + "/var/standin/runs.jsonl"

func (h *host) runs(t *testing.T) []nlserverRun {
	t.Helper()
	text, err := os.ReadFile(h.outsidePath(runLog))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var runs []nlserverRun
	for line := range strings.Lines(string(text)) {
		var r nlserverRun
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("log of the stand-in: %v", err)
		}
		runs = append(runs, r)
	}
	return runs
}

// awaitRun waits for a line of the stand-in's log behind the first seen ones.
func (h *host) awaitRun(t *testing.T, what string, seen int, fits func(nlserverRun) bool) (found nlserverRun) {
	t.Helper()
	await(t, what, patience, func() bool {
		for _, r := range h.runs(t)[seen:] {
			if fits(r) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// faults sets the stand-in's fault switches, as JSON; empty for none.
func (h *host) faults(t *testing.T, switches string) {
	t.Helper()
	command := []string{"nlserver-standin", "--standin-faults", campaignHome}
	if switches != "" {
		command = append(command, switches)
	}
	h.run(t, command...)
}

// release ends the waits of the stand-in's runs, those under way and all that come before faults are set again.
func (h *host) release(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(h.outsidePath(campaignHome+"/var/standin/released"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// alive tells whether a process is there, a zombie excepted.
func (h *host) alive(pid string) bool {
	status, err := os.ReadFile(h.path("/proc/" + pid + "/status"))
	return err == nil && !strings.HasPrefix(field(string(status), "State:"), "Z")
}

// journalEnd is a mark for journal. It has to be a line that journal shows: where a filter hides the line of the mark, journalctl
// (252) takes the next line that the filter lets through for it, and leaves that one out.
func (h *host) journalEnd(t *testing.T) (mark string) {
	t.Helper()
	h.run(t, "journalctl", "--sync")
	for line := range strings.Lines(h.run(t, "journalctl", "-u", unit, "-n", "1", "-o", "cat", "--show-cursor")) {
		if cursor, ok := strings.CutPrefix(line, "-- cursor: "); ok {
			mark = strings.TrimSpace(cursor)
		}
	}
	if mark == "" {
		t.Fatal("the journal has no cursor")
	}
	return mark
}

// journal is what the daemon and systemd said about the unit, since a mark or, with an empty one, from the start: a line for each entry.
// That of the daemon begins with its priority, "level=WARN ".
func (h *host) journal(t *testing.T, mark string, also ...string) string {
	t.Helper()
	command := append([]string{"journalctl", "--no-pager", "-o", "json", "-u", unit}, also...)
	if mark != "" {
		command = append(command, "--after-cursor="+mark)
	}
	levels := map[string]string{"3": "ERROR", "4": "WARN", "6": "INFO", "7": "DEBUG"}
	var lines strings.Builder
	for entry := range strings.Lines(h.run(t, command...)) {
		var fields struct{ MESSAGE, PRIORITY, SYSLOG_IDENTIFIER string }
		if err := json.Unmarshal([]byte(entry), &fields); err != nil {
			t.Fatalf("%v: %s", err, entry)
		}
		if fields.SYSLOG_IDENTIFIER == "campaign-credsync" {
			lines.WriteString("level=" + levels[fields.PRIORITY] + " ")
		}
		lines.WriteString(fields.MESSAGE + "\n")
	}
	return lines.String()
}

// awaitJournal waits for a line with text and returns it.
func (h *host) awaitJournal(t *testing.T, mark, text string) (line string) {
	t.Helper()
	await(t, "a line with "+text+" in the journal", patience, func() bool {
		for line = range strings.Lines(h.journal(t, mark)) {
			if strings.Contains(line, text) {
				return true
			}
		}
		return false
	})
	return strings.TrimSpace(line)
}

// noWarnings fails the test for each warning and error that the daemon wrote since the mark, but for drift that it reverted.
func (h *host) noWarnings(t *testing.T, mark string) {
	t.Helper()
	h.run(t, "journalctl", "--sync")
	for line := range strings.Lines(h.journal(t, mark)) {
		if strings.Contains(line, "level=WARN") && !strings.Contains(line, "level=WARN drift reverted ") || strings.Contains(line, "level=ERROR") {
			t.Errorf("said by the daemon: %s", line)
		}
	}
}
