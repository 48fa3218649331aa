package faults_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

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
