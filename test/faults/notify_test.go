package faults_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// Whatever the program of notify.exec does, drift is reverted, a stop ends, and the status says why it fails; a reload with one that works is the
// end of that.
func TestNotifyProgramTrouble(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ exec, says string }{
		"hangs":                       {`/bin/sh, -c, "sleep 600 & sleep 600"`, "killed after 1s"},
		"fails":                       {`/bin/sh, -c, "echo no such user >&2; exit 3"`, "exit status 3"},
		"is missing":                  {`/nowhere/notify`, "not found"},
		"is no program":               {`/dev/null`, "exit status 126"},
		"prints 1 GiB":                {`/bin/sh, -c, "head -c 1073741824 /dev/zero; exit 1"`, "notify.exec"},
		"reads nothing":               {`/bin/sh, -c, "exec 0<&-; exit 1"`, "exit status 1"},
		"leaves a child with its end": {`/bin/sh, -c, "setsid sleep 5 & exit 0"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{Settings: fmt.Sprintf("notify: {timeout: 1s, exec: [%s]}", c.exec)})
			reverts(w, secrets["prod"])
			if c.says != "" {
				w.Warns("notify_failing", false, c.says)
			}
			reverts(w, secrets["prod"])
			if c.says != "" {
				w.Warns("notify_failing", false, c.says)
				metrics := w.Exits(0, "", "status", "--prometheus")
				if strings.Contains(metrics, "campaign_credsync_notify_failures_total 0\n") || !strings.Contains(metrics, `campaign_credsync_warning{code="notify_failing"} 1`) {
					t.Errorf("metrics: %s", metrics)
				}
			}
			w.Must(w.Reconfigure(w.Ctx, func(o *container.Options) {
				o.Settings = "watch: {poll: 1s}\nlog: {level: debug, format: text}\nnotify: {exec: [/bin/sh, -c, 'cat >>\"$0\"', " + w.Path("told") + "]}"
			}))
			w.HangUp()
			w.Eventually("the new program is told of the reload", func() bool {
				text, _ := os.ReadFile(w.Path("told"))
				return strings.Contains(string(text), `"event":"reloaded"`)
			})
			w.Warns("notify_failing", true)
		})
	}
}

// A program on a mount that does not answer holds up nothing, and cannot be killed; a stop does not wait for it.
func TestNotifyProgramOnAHangingMount(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{})
	dir := w.Path("hook")
	w.Must(os.Mkdir(dir, 0o755))
	w.Must(w.Reconfigure(w.Ctx, func(o *container.Options) { o.Settings += "\nnotify: {timeout: 1s, exec: [" + dir + "/notify]}" }))
	defer w.Hangs(dir)()
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	reverts(w, secret)
	_, next := w.NewSecret("prod")
	w.InSync(2)
	reverts(w, next)
	w.Warns("notify_failing", false, "notify")
	w.Stop()
}

// More than a thousand events at once for a program that hangs: no revert and no line of the history waits for it, one process of it is there at a
// time, at most ten are begun in a minute, the trouble is told once, and a program that works is told of what comes next.
func TestThousandEventsForAProgramThatHangs(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Programs: world.Plain(), Settings: "watch: {poll: 1h}"})
	begun := w.Path("begun")
	w.Reconfigured(func(o *container.Options) {
		o.Settings += fmt.Sprintf("\nnotify: {timeout: 1s, exec: [/bin/sh, -c, 'echo $$ >>\"$0\"; exec sleep 600', %s]}", begun)
	})
	const missing = 350
	withMissing(w, missing)
	_, secret := w.NewSecret("prod")
	began := time.Now()
	w.StartDaemon()
	w.OneInSync("prod", 1)
	reverts(w, secret)
	w.Exits(1, "", "sync")
	reverts(w, secret)
	w.Eventually("all is in the history", func() bool {
		n := map[string]int{}
		for _, e := range w.History() {
			n[e.Kind]++
		}
		return n["degraded"] == missing && n["blocked"] == missing && n["sync_asked"] == missing+1 && n["drift_reverted"] == 2
	})
	runs := func() (all []string) {
		text, _ := os.ReadFile(begun)
		return strings.Fields(string(text))
	}
	told := 0
	w.Eventually("three runs have hung, one after the other", func() bool {
		alive := 0
		for _, pid := range runs() {
			if name, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && strings.Contains(string(name), "600") {
				alive++
			}
		}
		if alive > 1 {
			t.Fatalf("%d run at a time", alive)
		}
		n := len(runs())
		if alive == 0 && n > told { // what came during a run was joined into one event: after each, one more makes the next
			told = n
			reverts(w, secret)
		}
		return n > 3
	})
	reverts(w, secret)
	w.Warns("notify_failing", false, "killed after 1s")
	if most := 11 + int(time.Since(began).Minutes()*10); len(runs()) > most {
		t.Errorf("the program was begun %d times, want at most %d", len(runs()), most)
	}
	if n := strings.Count(w.Log(), "the program of notify.exec failed"); n != 1 {
		t.Errorf("told %d times", n)
	}
	w.Must(w.Reconfigure(w.Ctx, func(o *container.Options) {
		o.Settings = "watch: {poll: 1h}\nlog: {level: debug, format: text}\nnotify: {exec: [/bin/sh, -c, 'cat >>\"$0\"', " + w.Path("told") + "]}"
	}))
	w.HangUp()
	w.Eventually("the new program is told of the reload", func() bool {
		text, _ := os.ReadFile(w.Path("told"))
		return strings.Contains(string(text), `"event":"reloaded"`)
	})
	w.Warns("notify_failing", true)
}
