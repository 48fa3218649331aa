package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/world"
)

// A hand edit that is put back at once restarts nothing of Campaign's and writes no record ahead, however long the daemon was idle
// before. Only edits count that were back within a second: on a busy machine others may take long, and are activated with reason.
func TestHandEditsRestartNothing(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{
		Campaign: "activate: {restart: [web, pipelined]}", Settings: "watch: {poll: 1h}\ndrift: {max_reverts: 1000}", Programs: world.Plain()})
	styles := []editors.Style{editors.InPlace, editors.Rename, editors.Pieces, editors.Recreate}
	restarts := func() int { return w.CountRuns("start", "reload") + w.CountRuns("start", "restart") }
	before, quick, slow := restarts(), 0, 0
	for quick < 100 {
		pause := rand.N(100 * time.Millisecond)
		if quick%25 == 24 {
			pause = 5*time.Second + rand.N(2*time.Second) // idle
		}
		time.Sleep(pause)
		secret := w.Attribute("prod", "authIMSTAClientSecret")
		document := world.Replaced(t, w.Read("prod"), `authIMSTAClientSecret="`+secret+`"`, `authIMSTAClientSecret=""`)
		began := time.Now()
		w.Must(editors.Write(w.File("prod"), styles[quick%len(styles)], document))
		for deadline := time.Now().Add(world.Patience); strings.Contains(string(w.Read("prod")), `authIMSTAClientSecret=""`); {
			if time.Now().After(deadline) {
				t.Fatalf("edit %d is not put back\n%s", quick, w.Log())
			}
			time.Sleep(time.Millisecond)
		}
		if time.Since(began) > time.Second {
			slow++
			w.Pass()
			before = restarts()
			continue
		}
		quick++
	}
	if s := w.Pass(); !s.Is("in_sync") || world.One(s, "prod").RevertedTotal < 1 {
		t.Errorf("%+v", s)
	}
	w.Holds("prod", secrets["prod"])
	if n := restarts() - before; n > 0 {
		t.Errorf("%d restarts and reloads after %d hand edits\n%s", n, quick, w.Log())
	}
	t.Logf("%d hand edits, %d restarts; %d more took longer than a second", quick, restarts()-before, slow)
}

// Drift that may have been on disk for long is put back, and Campaign's processes are told: what happened while the daemon did not
// run, or stood still, or got no events.
func TestLongDriftIsActivated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		drift func(*world.World)
	}{
		{"the daemon was down", func(w *world.World) {
			w.Stop()
			w.Blank("prod")
			w.StartDaemon()
		}},
		{"killed", func(w *world.World) {
			w.Kill()
			w.Blank("prod")
			w.StartDaemon()
		}},
		// The second edit hides how old the first is.
		{"stopped", func(w *world.World) {
			w.Signal(syscall.SIGSTOP)
			w.Eventually("it is stopped", func() bool { return stateOf(w.Running.PID()) == "T" })
			w.Blank("prod")
			time.Sleep(3 * time.Second)
			w.Edits("prod", func(d []byte) []byte { return world.Replaced(t, d, `maxMB="`, `maxMB="1`) })
			w.Signal(syscall.SIGCONT)
		}},
		// Its change time is of long ago.
		{"another file took its place with its directory", func(w *world.World) {
			conf := filepath.Join(w.Home, "conf")
			w.Run("cp", "-a", conf, conf+".new")
			file := filepath.Join(conf+".new", filepath.Base(w.File("prod")))
			document := world.Replaced(t, w.Read("prod"), w.Attribute("prod", "authIMSTAClientSecret"), "")
			w.Must(os.WriteFile(file, document, 0o640))
			time.Sleep(3 * time.Second) // the watch looks at what no event tells every 2 s, once after each change
			w.Must(unix.Renameat2(unix.AT_FDCWD, conf, unix.AT_FDCWD, conf+".new", unix.RENAME_EXCHANGE))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{Campaign: "activate: {restart: [web]}", Settings: "watch: {poll: 1h}"})
			c.drift(w)
			w.Eventually("the processes are told", func() bool { return w.CountRuns("end", "restart", "web") == 2 })
			w.OnDisk("prod", secrets["prod"])
			w.InSync(1)
			w.Ran(2, "end", "reload")
			w.Ran(1, "end", "set")
		})
	}
}

// stateOf is the letter by which /proc tells what a process does.
func stateOf(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(stat[max(0, strings.LastIndexByte(string(stat), ')')+1):]))
	if err != nil || len(fields) == 0 {
		return ""
	}
	return fields[0]
}
