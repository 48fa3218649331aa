//go:build systemd

// Package systemd tests the packaged unit where it will live: in a Debian that systemd-nspawn boots, with a systemd of
// its own as process 1, the daemon as user neolane in its whole sandbox, a real Vault and the stand-in of nlserver. What
// it cannot show: the real nlserver's needs, and what an SELinux or AppArmor policy of a site adds.
//
// It needs Linux, root with all capabilities, a writable cgroup file system, unshare and nsenter (util-linux), make, and
// debootstrap and systemd-nspawn (apt-get install debootstrap systemd-container, which it tries by itself). The first run
// downloads Debian's packages, about 40 seconds, and keeps them unpacked in campaign-credsync-test below the user's cache
// directory; no run writes there again. Where it cannot run it is skipped, and with CI=true in the environment it fails.
// SYSTEMD_TEST_SUITE names another Debian than bookworm: from trixie on systemd knows Type=notify-reload.
//
// The container shares the network of the machine. Run it with make test-systemd.
package systemd

import (
	"fmt"
	"os"
	"testing"

	"campaign-credsync/test/skip"
)

const unit = "campaign-credsync.service"

// TestUnit boots once; its parts follow one another, each from a unit that is in sync.
func TestUnit(t *testing.T) {
	// What is set for an external Vault is not meant for this one.
	t.Setenv("VAULT_ADDR", "")
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("VAULT_NAMESPACE", "")
	requireTools(t)
	h := newHost(t)
	for _, part := range []struct {
		name string
		test func(*testing.T, *host)
	}{
		{"install", testInstall},
		{"sandbox", testSandbox},
		{"exposure", testExposure},
		{"watchdog", testWatchdog},
		{"reload", testReload},
		{"broken configuration at reload", testBrokenReload},
		{"own temporary files", testOwnTemporaryFiles},
		{"control group", testControlGroup},
		{"journal fields", testJournalFields},
		{"rotation", testRotation},
		{"hand edits", testHandEdits},
		{"stop", testStop},
		{"stop while nlserver writes", testStopWhileWriting},
		{"modules outlive the unit", testModulesOutlive},
		{"restarts outside", testOutside},
		{"activation socket", testActivationSocket},
		{"no activation socket", testActivationWithoutSocket},
		{"kill -9 while nlserver writes", testKill},
		{"bad configuration at start", testBadConfiguration},
		{"who watches sees no secret", testWatchersSeeNoSecret},
		{"notify-reload", testNotifyReload},
		{"unit for RHEL 8", testUnitForOldSystemd},
		{"wrapped secret-id", testWrappedSecretID},
		{"secrets show nowhere", testSecretsShowNowhere},
	} {
		passed := t.Run(part.name, func(t *testing.T) { part.test(t, h) })
		switch {
		case passed:
		case part.name == "install":
			t.Fatal("nothing else can work")
		default:
			h.settle(t)
		}
	}
}

// requireTools makes sure that everything is there, installs what may be installed, and ends the test otherwise.
func requireTools(t *testing.T) {
	if os.Geteuid() != 0 {
		cannot(t, "booting a container needs root")
	}
	for _, tool := range []string{"unshare", "nsenter", "make", "go"} {
		if !installed(tool) {
			cannot(t, "%s is not installed", tool)
		}
	}
	installTools(t, "debootstrap", "systemd-container")
	if out, err := outside(t, "unshare", "--pid", "--fork", "--mount-proc", "true"); err != nil {
		cannot(t, "root without the capabilities to boot a container: %v: %s", err, out)
	}
}

// cannot ends the test: a machine that is not fit for it is a reason to skip, except where the test is what the machine
// is there for.
func cannot(t *testing.T, format string, args ...any) {
	t.Helper()
	skip.Unable(t, fmt.Sprintf(format, args...))
}
