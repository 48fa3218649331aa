package faults_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// runModule runs a module as Campaign does, until the test ends or it is restarted.
func runModule(w *world.World, module string) {
	w.T.Helper()
	started(w, module, "", "--standin-module", w.Home, module, "0")
}

// startWatchdog runs modules, and starts those that a restart asks for.
func startWatchdog(w *world.World, modules ...string) {
	w.T.Helper()
	started(w, modules[len(modules)-1], "STANDIN_MODULES="+strings.Join(modules, " "), "--standin-watchdog", w.Home)
}

func started(w *world.World, module, env string, args ...string) {
	w.T.Helper()
	c := exec.Command(filepath.Join(w.Home, "bin", "nlserver"), args...)
	c.Env = append(os.Environ(), env)
	before := modulePID(w, module)
	w.Must(c.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); c.Wait() }()
	w.T.Cleanup(func() { c.Process.Kill(); <-ended })
	w.Eventually("module "+module+" runs", func() bool { return modulePID(w, module) != before })
}

// modulePID is the process that a module had last.
func modulePID(w *world.World, module string) int {
	text, _ := os.ReadFile(filepath.Join(w.Home, "var/standin/modules", module+".pid"))
	pid, _ := strconv.Atoi(string(text))
	return pid
}

func isProven(w *world.World) bool {
	stdout, _, _ := w.Command(w.Ctx, "status", "--json")
	return strings.Contains(stdout, `"proven":true`)
}

// A restarted module is proven by its new process, whoever starts it, and through the socket, too.
func TestRestartIsProven(t *testing.T) {
	bothWays(t, func(t *testing.T, outside bool) {
		for _, mode := range []string{"child", "watchdog"} {
			w := world.New(t, container.Options{Outside: outside, Campaign: "activate: {restart: [web, pipelined]}"})
			w.Faults(`{"modules": "` + mode + `"}`)
			startWatchdog(w, "web", "pipelined@prod")
			before := modulePID(w, "web")
			w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(1)
			if modulePID(w, "web") == before || !isProven(w) {
				t.Errorf("%s: not proven\n%s", mode, w.Log())
			}
			// Campaign restarts them daily. That is no event of ours.
			w.Must(syscall.Kill(modulePID(w, "web"), syscall.SIGTERM))
			w.Pass()
			w.InSync(1)
			if !isProven(w) {
				t.Errorf("%s: a module that Campaign ended takes the proof back", mode)
			}
			w.Ran(1, "start", "restart", "web")
		}
	})
}

// A module that does not come back is not called activated. It is looked for again, by the next daemon, too, and not restarted; when it is
// there, it is proven.
func TestModuleThatDoesNotComeBack(t *testing.T) {
	bothWays(t, func(t *testing.T, outside bool) {
		w := world.New(t, container.Options{Outside: outside, Campaign: "timeout: 3s, activate: {restart: [web]}"})
		w.Faults(`{"modules": "child", "module_lost": true}`)
		runModule(w, "web")
		w.NewSecret("prod")
		w.StartDaemon()
		w.Is("prod", "activation_pending/activation_unproven", "module web does not run after its restart")
		w.Stop()
		w.StartDaemon()
		w.Is("prod", "activation_pending/activation_unproven", "module web does not run after its restart")
		w.RunCommand("sync")
		if isProven(w) {
			t.Error("proven, and it does not run")
		}
		runModule(w, "web")
		w.InSync(1)
		if !isProven(w) {
			t.Errorf("not proven, and it runs again\n%s", w.Log())
		}
		w.Ran(1, "start", "restart", "web")
		history, _, _ := w.Command(w.Ctx, "history", "--json")
		if !strings.Contains(history, `"event":"unproven"`) || !strings.Contains(history, `"event":"recovered"`) {
			t.Errorf("the history: %s", history)
		}
	})
}

// A stop while a module is looked for waits for nothing, and restarts nothing: the next start looks.
func TestStopWhileAModuleIsLookedFor(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Campaign: "timeout: 1h, activate: {restart: [web]}"})
	w.Faults(`{"modules": "child", "module_lost": true}`)
	runModule(w, "web")
	w.NewSecret("prod")
	w.StartDaemon()
	w.Eventually("it was restarted", func() bool { return w.CountRuns("end", "restart", "web") == 1 })
	w.Stop()
	runModule(w, "web")
	w.StartDaemon()
	w.InSync(1)
	w.Ran(1, "start", "restart", "web")
	if !isProven(w) {
		t.Error("not proven")
	}
}

// "No task corresponds to the mask" is no failure, whatever the exit status: there is no such module. It is said once, and proves nothing.
func TestModuleThatIsNotThere(t *testing.T) {
	bothWays(t, func(t *testing.T, outside bool) {
		w := world.New(t, container.Options{Outside: outside, Campaign: "activate: {restart: [web]}"})
		w.Faults(`{"modules": "child", "no_task_exit": 3}`)
		w.NewSecret("prod")
		w.StartDaemon()
		w.InSync(1)
		version, _ := w.NewSecret("prod")
		w.InSync(version)
		w.Ran(2, "end", "restart", "web")
		if n := strings.Count(w.Log(), "module not there, nothing to prove"); n != 1 {
			t.Errorf("said %d times\n%s", n, w.Log())
		}
		if isProven(w) {
			t.Error("proven, and nothing was")
		}
	})
}

// Where no process is recognised as the module, that is said once, and nothing is called proven; a program that only has its name
// is none.
func TestModuleThatIsNotRecognised(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Campaign: "activate: {restart: [web]}"})
	other := exec.Command("/bin/sh", "-c", "sleep 600; :", "nlserver", "web")
	w.Must(other.Start())
	defer func() { other.Process.Kill(); other.Wait() }()
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	version, _ := w.NewSecret("prod")
	w.InSync(version)
	if n := strings.Count(w.Log(), "restart not proven"); n != 1 {
		t.Errorf("said %d times\n%s", n, w.Log())
	}
	if isProven(w) {
		t.Error("proven, and nothing was")
	}
}

// A module is restarted at most once in min_interval, whatever happens: another credential, a kill, a restart of the daemon, an operator.
// That is no failure, and the status says until when.
func TestMinInterval(t *testing.T) {
	bothWays(t, func(t *testing.T, outside bool) {
		const campaign = "activate: {reload: false, min_interval: %s, restart: [web]}"
		w := world.New(t, container.Options{Outside: outside, Campaign: strings.Replace(campaign, "%s", "1h", 1)})
		w.NewSecret("prod")
		w.StartDaemon()
		w.InSync(1)
		version, secret := w.NewSecret("prod")
		w.OnDisk("prod", secret)
		w.Is("prod", "activation_pending/activation_waits", "restart web", "not before", "campaign.activate.min_interval")
		w.RunCommand("sync")
		w.Kill()
		w.StartDaemon()
		w.Is("prod", "activation_pending/activation_waits", "restart web", "not before")
		w.Stop()
		w.StartDaemon()
		w.Is("prod", "activation_pending/activation_waits", "restart web", "not before")
		w.Ran(1, "start", "restart", "web")
		if log := w.Log(); strings.Contains(log, "credential not activated") {
			t.Errorf("it is called a failure:\n%s", log)
		}
		w.Reconfigured(func(o *container.Options) { o.Campaign = strings.Replace(campaign, "%s", "1ms", 1) })
		w.HangUp()
		w.InSync(version)
		w.Ran(2, "start", "restart", "web")
	})
}
