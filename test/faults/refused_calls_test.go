package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// refusedGroups are the groups of system calls that the unit refuses beside @privileged, as systemd-analyze syscall-filter lists them.
var refusedGroups = map[string][]int{
	"@resources": {unix.SYS_IOPRIO_SET, unix.SYS_MBIND, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_SETATTR,
		unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SET_MEMPOLICY, unix.SYS_SETPRIORITY, unix.SYS_SETRLIMIT},
	"@aio": {unix.SYS_IO_CANCEL, unix.SYS_IO_DESTROY, unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS, unix.SYS_IO_SETUP, unix.SYS_IO_SUBMIT,
		unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_IO_URING_SETUP},
	"@keyring": {unix.SYS_ADD_KEY, unix.SYS_KEYCTL, unix.SYS_REQUEST_KEY},
	"@memlock": {unix.SYS_MLOCK, unix.SYS_MLOCK2, unix.SYS_MLOCKALL, unix.SYS_MUNLOCK, unix.SYS_MUNLOCKALL},
}

// What the unit's filter refuses the daemon never calls, whatever it does: a refused call would fail there only.
func TestDaemonCallsNothingThatItsUnitRefuses(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile(filepath.Join(root, "packaging", "systemd", "campaign-credsync.service"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(unit), "\nSystemCallFilter=~@privileged @resources @aio @keyring @memlock\n") {
		t.Fatal("the unit's filter is another one")
	}
	refused := map[string]string{}
	for group, calls := range refusedGroups {
		for _, number := range calls {
			refused[fmt.Sprintf("call %d", number)] = group
		}
	}
	tracer := buildTracer(t)
	w, _ := world.Started(t, container.Options{Programs: world.Plain(), Campaign: "activate: {restart: [web]}",
		Settings: "notify: {exec: [/bin/cat]}"})
	tr := trace(w, tracer, "-list")
	_, second := w.NewSecret("prod")
	w.InSync(2)
	w.Blank("prod")
	w.OnDisk("prod", second)
	w.HangUp()
	w.Proxy.Down()
	w.Is("prod", "degraded/vault_unreachable")
	w.Must(w.Proxy.Up())
	w.Signal(syscall.SIGUSR1)
	w.Pass()
	w.Exits(0, "", "history")
	w.Stop()
	<-tr.ended
	seen := map[string]bool{}
	for _, c := range tr.calls {
		seen[c.Call] = true
		if group, is := refused[c.Call]; is {
			t.Errorf("%v is in %s, which the unit refuses", c, group)
		}
	}
	if !seen["renameat2"] || !seen["clone"] && !seen["clone3"] || !seen["connect"] {
		t.Errorf("it seems to do nothing: %v", seen)
	}
}
