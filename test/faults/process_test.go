package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/world"
)

// Other processes of the daemon's user cannot look into its memory, and none of its memory gets into a core dump: the kernel
// gives what is below /proc to root then.
func TestMemoryIsNotForOthers(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	const user = 12345
	w, _ := world.Started(t, container.Options{User: user, Programs: world.Plain()})
	info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", w.Running.PID()))
	w.Must(err)
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("the memory of the daemon belongs to user %d", owner)
	}
}

// Without /proc, as in some containers: everything works.
func TestNoProc(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	programs := world.Plain()
	script := filepath.Join(t.TempDir(), "without-proc")
	text := "#!/bin/sh\nexec unshare --mount sh -c 'mount -t tmpfs none /proc && exec \"$0\" \"$@\"' '" + programs.Daemon + "' \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	programs.Daemon = script
	w := world.New(t, container.Options{Programs: programs, Campaign: "activate: {restart: [web]}"})
	_, first := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/proc", w.Running.PID())); err != nil || len(entries) > 0 {
		skip.Unable(t, fmt.Sprintf("/proc cannot be hidden: %d entries, %v", len(entries), err))
	}
	w.Holds("prod", first)
	w.Blank("prod")
	w.OnDisk("prod", first)
	w.Faults(`{"garbage": true, "times": 1}`)
	_, second := w.NewSecret("prod")
	w.OnDisk("prod", first)
	w.Pass()
	w.Eventually("the next one works", func() bool { return w.Pass().Applied(2) })
	w.Holds("prod", second)
	w.Kill()
	w.Blank("prod")
	w.StartDaemon()
	w.InSync(2)
	w.Holds("prod", second)
}
