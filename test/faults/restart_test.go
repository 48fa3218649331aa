package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// A module that a restart forks as its own child lives on, prints as long as it likes, and has nothing of the daemon: no
// descriptor, no session, no group. So no end of the daemon, and no silence of its, touches it.
func TestRestartedModuleIsItsOwn(t *testing.T) { bothWays(t, restartedModuleIsItsOwn) }

func restartedModuleIsItsOwn(t *testing.T, outside bool) {
	w := world.New(t, container.Options{Outside: outside, Campaign: "activate: {restart: [web, pipelined]}"})
	w.Faults(`{"module_lines": 100}`)
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	modules := modulesOf(w)
	if len(modules) != 2 {
		t.Fatalf("modules %v\n%s", modules, w.Log())
	}
	daemon := processStat(t, w.Running.PID())
	for _, pid := range modules {
		stat := processStat(t, pid)
		if stat.session == daemon.session || stat.group == daemon.group {
			t.Errorf("the module is in session %d and group %d, the daemon in %d and %d", stat.session, stat.group, daemon.session, daemon.group)
		}
		for fd, target := range descriptorsOf(t, pid) {
			// None ran before, so what the restart prints is read: from memory of a fixed size, which holds up nobody.
			memory := (fd == 1 || fd == 2) && strings.HasPrefix(target, "/memfd:nlserver-restart")
			ours := fd <= 2 && target != os.DevNull && !memory || strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "socket:") ||
				strings.HasPrefix(target, w.StateDir())
			if ours {
				t.Errorf("descriptor %d of the module is %s", fd, target)
			}
		}
	}
	w.Stop()
	w.Eventually("the modules have printed their lines", func() bool { return countEvents(w, "printed") == 2 })
	for _, pid := range modules {
		if syscall.Kill(pid, 0) != nil {
			t.Errorf("the module is gone")
		}
	}
}

// Signals that the daemon was started with as ignored, as systemd and nohup do, are as they should be in what it runs.
func TestIgnoredSignalsAreNotInherited(t *testing.T) {
	t.Parallel()
	programs := world.Plain()
	w := world.New(t, container.Options{Campaign: "activate: {restart: [web]}", Programs: ignoring(t, programs)})
	w.Must(wrapped("")(w))
	nlserver := filepath.Join(w.Home, "bin", "nlserver")
	script := "#!/bin/sh\ngrep SigIgn /proc/self/status >>'" + w.Path("ignored") + "'\nexec '" + nlserver + ".real' \"$@\"\n"
	w.Must(os.WriteFile(nlserver, []byte(script), 0o755))
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	text, err := os.ReadFile(w.Path("ignored"))
	w.Must(err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) < 4 { // options, set, reload, restart
		t.Errorf("%d runs", len(lines))
	}
	for _, line := range lines {
		set, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(line, "SigIgn:")), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []syscall.Signal{syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGTERM} {
			if set&(1<<(s-1)) != 0 {
				t.Errorf("%v is ignored in what the daemon runs (%s)", s, line)
			}
		}
	}
}

// bothWays runs a test with activation by the daemon itself, and through the activation socket.
func bothWays(t *testing.T, test func(t *testing.T, outside bool)) {
	t.Parallel()
	for _, outside := range []bool{false, true} {
		t.Run(map[bool]string{false: "direct", true: "socket"}[outside], func(t *testing.T) {
			t.Parallel()
			test(t, outside)
		})
	}
}

// ignoring has the daemon started as systemd and nohup start programs.
func ignoring(t *testing.T, programs container.Programs) container.Programs {
	t.Helper()
	script := filepath.Join(t.TempDir(), "ignoring")
	text := "#!/bin/sh\ntrap '' PIPE HUP\nexec '" + programs.Daemon + "' \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	programs.Daemon = script
	return programs
}

// slowRestart returns a world whose daemon is in the middle of a restart of web, which is down meanwhile.
func slowRestart(t *testing.T, outside bool, campaign, faults string) (*world.World, container.Run) {
	t.Helper()
	w := world.New(t, container.Options{Outside: outside, Campaign: campaign})
	w.Faults(faults)
	w.NewSecret("prod")
	w.StartDaemon()
	return w, w.WaitsAt("restart_slow")
}

// A stop that comes in the middle of a restart waits for it, begins no other, and is no error. The next start does what is left.
func TestStopDuringARestart(t *testing.T) { bothWays(t, stopDuringARestart) }

func stopDuringARestart(t *testing.T, outside bool) {
	w, _ := slowRestart(t, outside, "activate: {restart: [web, pipelined]}", `{"restart_slow": "10m", "times": 1}`)
	w.Signal(syscall.SIGTERM)
	w.Logged("msg=stopping")
	w.Release()
	w.Ended(0)
	w.Ran(1, "end", "restart", "web")
	w.Ran(0, "start", "restart", "pipelined@prod")
	if strings.Contains(w.Log(), "level=ERROR") {
		t.Errorf("a stop is an error:\n%s", w.Log())
	}
	w.StartDaemon()
	w.InSync(1)
	w.Ran(1, "start", "reload")
	w.Ran(1, "start", "restart", "web")
	w.Ran(1, "start", "restart", "pipelined@prod")
}

// The same for a reload of the daemon's configuration.
func TestHangUpDuringARestart(t *testing.T) { bothWays(t, hangUpDuringARestart) }

func hangUpDuringARestart(t *testing.T, outside bool) {
	w, _ := slowRestart(t, outside, "activate: {restart: [web, pipelined]}", `{"restart_slow": "10m", "times": 1}`)
	w.Signal(syscall.SIGHUP)
	w.Logged("configuration read, waiting for running steps to end")
	if strings.Contains(w.Log(), "configuration reloaded") {
		t.Errorf("the reload does not wait for the restart\n%s", w.Log())
	}
	w.Release()
	w.Logged("configuration reloaded")
	w.InSync(1)
	w.Ran(1, "start", "reload")
	w.Ran(1, "start", "restart", "web")
	w.Ran(1, "start", "restart", "pipelined@prod")
}

// A restart that takes longer than the limit is reported and left to run. No second one of that module is begun before it has
// ended, whoever asks; one that ended well is not repeated, unless another credential came meanwhile.
func TestRestartSlowerThanTheLimit(t *testing.T) { bothWays(t, restartSlowerThanTheLimit) }

func restartSlowerThanTheLimit(t *testing.T, outside bool) {
	for _, c := range []struct {
		name string
		do   func(*world.World)
		runs int
	}{
		{"and ends well", func(*world.World) {}, 1},
		{"a new configuration", func(w *world.World) {
			w.Reconfigured(func(o *container.Options) { o.Campaign = "timeout: 2s, activate: {restart: [web]}" })
			w.HangUp()
		}, 1},
		{"another credential", func(w *world.World) {
			version, _ := w.NewSecret("prod")
			w.Applied("prod", version)
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{Outside: outside, Campaign: "timeout: 1s, activate: {restart: [web]}"})
			w.Faults(`{"restart_slow": "10m", "times": 1}`)
			w.NewSecret("prod")
			w.StartDaemon()
			w.Logged("credential not activated", "restart web", "campaign.timeout")
			w.Is("prod", "activation_pending", "restart web")
			c.do(w)
			w.RunCommand("sync")
			w.Signal(syscall.SIGUSR1)
			w.Is("prod", "activation_pending/activation_failed", "restart web", "has not ended")
			w.Ran(1, "start", "restart", "web")
			w.Release()
			w.Eventually("it ended", func() bool { return w.CountRuns("end", "restart", "web") == 1 })
			w.Pass()
			w.Eventually("it is in sync", func() bool { return w.Pass().Is("in_sync") })
			w.Ran(c.runs, "end", "restart", "web")
			noOverlap(t, w, "web")
		})
	}
}

// A stop waits for a restart no longer than its limit, and leaves it alone.
func TestStopDuringAnEndlessRestart(t *testing.T) { bothWays(t, stopDuringAnEndlessRestart) }

func stopDuringAnEndlessRestart(t *testing.T, outside bool) {
	w, restart := slowRestart(t, outside, "timeout: 3s, activate: {restart: [web]}", `{"restart_slow": "1h"}`)
	w.Stop()
	if syscall.Kill(restart.PID, 0) != nil {
		t.Fatal("the restart is gone")
	}
	world.Says(t, w.Log(), "campaign.timeout", "left to run")
	// The next daemon begins no second one before it has ended.
	w.StartDaemon()
	w.Is("prod", "activation_pending", "restart web", "has not ended yet")
	w.RunCommand("sync")
	w.Ran(1, "start", "restart", "web")
	w.Faults("")
	w.Must(syscall.Kill(restart.PID, syscall.SIGKILL))
	w.Pass()
	w.InSync(1)
	w.Ran(2, "start", "restart", "web")
}

// A daemon that is killed in the middle of a restart leaves it alone, and so does the next one.
func TestKilledDuringARestart(t *testing.T) { bothWays(t, killedDuringARestart) }

func killedDuringARestart(t *testing.T, outside bool) {
	w, _ := slowRestart(t, outside, "activate: {restart: [web]}", `{"restart_slow": "10m", "times": 1}`)
	w.Kill()
	w.StartDaemon()
	w.Is("prod", "activation_pending", "restart web", "has not ended yet")
	w.Release()
	w.Eventually("it ended", func() bool { return w.CountRuns("end", "restart", "web") == 1 })
	w.Eventually("it is in sync", func() bool { return w.Pass().Is("in_sync") })
	noOverlap(t, w, "web")
	w.Ran(2, "start", "restart", "web")
	w.Ran(1, "start", "reload")
}

// After three failures in a row a module is restarted every ten minutes only, whoever asks, by which daemon whatever, or when somebody reloads.
func TestRestartThatFailsAgainAndAgain(t *testing.T) { bothWays(t, restartThatFailsAgainAndAgain) }

func restartThatFailsAgainAndAgain(t *testing.T, outside bool) {
	w := world.New(t, container.Options{Outside: outside, Campaign: "activate: {restart: [web]}"})
	w.Faults(`{"restart_fail": ["web"]}`)
	w.NewSecret("prod")
	w.StartDaemon()
	w.Is("prod", "activation_pending/activation_failed", "restart web", "3 times in a row", "systemctl reload")
	for range 3 {
		w.RunCommand("sync")
		w.Signal(syscall.SIGUSR1)
	}
	for _, end := range []func(){w.Stop, w.Kill} { // a crash loop, an upgrade
		end()
		w.StartDaemon()
		w.Is("prod", "activation_pending/activation_failed", "restart web", "3 times in a row", "systemctl reload", "exit status 1")
	}
	w.Ran(3, "start", "restart", "web")
	w.Faults("")
	w.HangUp()
	w.InSync(1)
	w.Ran(4, "start", "restart", "web")
	w.Ran(1, "start", "reload")
}

// An operator's order where no daemon runs has a restart tried that failed three times.
func TestSyncAfterRestartsThatFailed(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Campaign: "activate: {restart: [web]}"})
	w.Faults(`{"restart_fail": ["web"]}`)
	w.NewSecret("prod")
	w.StartDaemon()
	w.Is("prod", "activation_pending/activation_failed", "3 times in a row")
	w.Stop()
	w.RunCommand("sync")
	tries := w.CountRuns("start", "restart", "web")
	if tries < 4 || tries > 6 { // the wait before another try is random, and may be over before the command ends
		t.Errorf("%d tries after the order", tries-3)
	}
	w.Faults("")
	w.StartDaemon()
	if tries == 6 { // three have failed again
		w.HangUp()
	}
	w.InSync(1)
	w.Ran(tries+1, "start", "restart", "web")
}

// A daemon that is killed in each restart restarts the module no more often than one whose restarts fail.
func TestKilledInEachRestart(t *testing.T) { bothWays(t, killedInEachRestart) }

func killedInEachRestart(t *testing.T, outside bool) {
	w := world.New(t, container.Options{Outside: outside, Campaign: "activate: {restart: [web]}"})
	w.Faults(`{"restart_slow": "10m"}`)
	w.NewSecret("prod")
	for n := range 3 {
		w.StartDaemon()
		w.Eventually("it restarts the module", func() bool { return w.CountRuns("start", "restart", "web") == n+1 })
		w.Kill()
		w.EndLeftRuns()
	}
	w.Faults("")
	w.StartDaemon()
	w.Is("prod", "activation_pending/activation_failed", "restart web", "3 times in a row", "last: ")
	w.Ran(3, "start", "restart", "web")
	w.HangUp()
	w.InSync(1)
	w.Ran(4, "start", "restart", "web")
}

func countEvents(w *world.World, event string) int {
	n := 0
	for _, r := range allRuns(w) {
		if r.Event == event {
			n++
		}
	}
	return n
}

func modulesOf(w *world.World) []int {
	var pids []int
	for _, r := range allRuns(w) {
		if r.Event == "child" && r.Kind == "restart" {
			pids = append(pids, r.ChildPID)
		}
	}
	return pids
}

// noOverlap demands that restarts of a module came one after the other.
func noOverlap(t *testing.T, w *world.World, module string) {
	t.Helper()
	running := 0
	for _, r := range allRuns(w) {
		if r.Kind != "restart" || !slices.Equal(r.Modules, []string{module}) {
			continue
		}
		switch r.Event {
		case "start":
			running++
		case "end":
			running--
		}
		if running > 1 {
			t.Errorf("two restarts of %s at once", module)
		}
	}
}

type processIDs struct{ group, session int }

func processStat(t *testing.T, pid int) (p processIDs) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	after := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
	var state string
	var parent int
	if _, err := fmt.Sscan(after, &state, &parent, &p.group, &p.session); err != nil {
		t.Fatal(err)
	}
	return p
}

func descriptorsOf(t *testing.T, pid int) map[int]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]string{}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			found[fd] = target
		}
	}
	return found
}

// The script that sets up the environment hangs before a step of activation, and is deaf: a stop ends it, begins nothing after it,
// and is no error. The next start does what is left.
func TestStopWhileEnvScriptHangs(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Programs: world.Plain(), Campaign: "activate: {restart: [web]}"})
	script := filepath.Join(w.Home, "env.sh")
	text, err := os.ReadFile(script)
	w.Must(err)
	hangs := "[ ! -e '" + w.Path("hang") + "' ] || { trap '' TERM; echo >'" + w.Path("hangs") + "'; sleep 600; }\n"
	w.Must(os.WriteFile(script, append([]byte(hangs), text...), 0o644))
	w.Faults(`{"write_delay": "1s"}`)
	w.NewSecret("prod")
	w.StartDaemon()
	w.WaitsAt("write_delay")
	w.Must(os.WriteFile(w.Path("hang"), nil, 0o600))
	w.Eventually("the script hangs", func() bool { _, err := os.Stat(w.Path("hangs")); return err == nil })
	began := time.Now()
	w.Stop()
	t.Logf("it ended after %v", time.Since(began))
	w.Ran(0, "start", "reload")
	if strings.Contains(w.Log(), "level=ERROR") {
		t.Errorf("a stop is an error:\n%s", w.Log())
	}
	w.Must(os.Remove(w.Path("hang")))
	w.Faults("")
	w.StartDaemon()
	w.InSync(1)
	w.Ran(1, "start", "set")
	w.Ran(1, "start", "reload")
	w.Ran(1, "start", "restart", "web")
}
