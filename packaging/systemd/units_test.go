// Package systemd_test checks what the units in this directory say; test/systemd runs them.
package systemd_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// since is the release of systemd that brought a directive, by its release notes, and where these are silent (OOMPolicy, StartLimitIntervalSec) by
// its manual ("Added in version"). old are those from before 230.
var since = map[string]int{
	"AmbientCapabilities": 229, "CollectMode": 236, "KeyringMode": 235, "LoadCredential": 247, "LockPersonality": 235, "OOMPolicy": 243,
	"PrivateMounts": 239, "ProtectClock": 245, "ProtectControlGroups": 232, "ProtectHostname": 242, "ProtectKernelLogs": 244, "ProtectKernelModules": 232,
	"ProtectKernelTunables": 232, "ProtectProc": 247, "ReadWritePaths": 231, "ReloadSignal": 253, "RemoveIPC": 232, "RestrictNamespaces": 233,
	"RestrictRealtime": 231, "RestrictSUIDSGID": 242, "StartLimitIntervalSec": 229, "StateDirectory": 235,
	"StateDirectoryMode": 235, "TriggerLimitIntervalSec": 230,
}

var old = strings.Fields(`Accept After CapabilityBoundingSet Description DevicePolicy Environment ExecReload ExecStart Group IgnoreSIGPIPE KillMode
	LimitCORE ListenStream MaxConnections NoNewPrivileges NotifyAccess PrivateDevices PrivateTmp ProtectHome ProtectSystem Restart RestartSec
	RestrictAddressFamilies RuntimeDirectory RuntimeDirectoryMode SendSIGKILL Slice SocketGroup SocketMode SocketUser StandardError StandardInput StandardOutput
	SystemCallArchitectures SystemCallErrorNumber SystemCallFilter TimeoutStartSec TimeoutStopSec Type UMask User WantedBy Wants WatchdogSec`)

// valueSince are values that are younger than their directive, from systemd's release notes.
var valueSince = map[*regexp.Regexp]int{
	regexp.MustCompile(`^Type=notify-reload`):           253,
	regexp.MustCompile(`^Type=exec`):                    240,
	regexp.MustCompile(`^SystemCallFilter=.*@known`):    247,
	regexp.MustCompile(`^RestrictAddressFamilies=none`): 249,
	regexp.MustCompile(`^PrivateTmp=disconnected`):      257,
	regexp.MustCompile(`%[dJ]`):                         250,
}

var directive = regexp.MustCompile(`^([A-Za-z0-9]+)=`)

// directives are the lines of a unit that are not comments.
func directives(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); directive.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// sinceOf is the release that a line needs.
func sinceOf(t *testing.T, line string) int {
	t.Helper()
	name := directive.FindStringSubmatch(line)[1]
	release, known := since[name]
	if !known && !slices.Contains(old, name) {
		t.Errorf("%s: look up in systemd's manual since when there is %s=, and add it here", line, name)
	}
	for value, younger := range valueSince {
		if value.MatchString(line) {
			release = max(release, younger)
		}
	}
	return release
}

// TestUnitsFitTheirReleases: no unit has what the oldest systemd that it is for does not know.
func TestUnitsFitTheirReleases(t *testing.T) {
	oldest := map[string]int{ // the others: that of RHEL 8
		"campaign-credsync.service": 247, // Debian 11
		"notify-reload.conf":        253,
	}
	files, err := filepath.Glob("*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "el8/campaign-credsync.service") {
		if !slices.Contains([]string{".service", ".socket", ".conf"}, filepath.Ext(file)) {
			continue
		}
		release, named := oldest[file]
		if !named {
			release = 239
		}
		for _, line := range directives(t, file) {
			if needs := sinceOf(t, line); needs > release {
				t.Errorf("%s: %s needs systemd %d, the unit is for %d", file, line, needs, release)
			}
		}
	}
}

// TestUnitForOldSystemd: the unit for RHEL 8 is the other one without what systemd 239 does not know.
func TestUnitForOldSystemd(t *testing.T) {
	const secretIDs = "Environment=CREDENTIALS_DIRECTORY=/etc/campaign-credsync/login" // in place of LoadCredential=
	var want []string
	for _, line := range directives(t, "campaign-credsync.service") {
		switch {
		case strings.HasPrefix(line, "LoadCredential="):
			want = append(want, secretIDs)
		case sinceOf(t, line) <= 239: // the environment of the daemon is that of the reload
			want = append(want, strings.Replace(line, "/usr/bin/env CREDENTIALS_DIRECTORY=/run/credentials/%n ", "", 1))
		}
	}
	got := directives(t, "el8/campaign-credsync.service")
	if !slices.Equal(got, want) {
		t.Errorf("el8/campaign-credsync.service has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
