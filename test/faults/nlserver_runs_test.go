package faults_test

import (
	"bufio"
	"bytes"
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

// Another build takes nlserver's place while it runs, and knows other options: it is asked for them.
func TestNlserverIsReplacedDuringARun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		before, after func(*world.World) // the run
		says          []string           // of the old build's option, where it cannot be known that there is a new one
	}{
		{"renamed over", func(*world.World) {}, func(w *world.World) {
			nlserver := filepath.Join(w.Home, "bin", "nlserver")
			w.Run("cp", nlserver, nlserver+".new")
			w.Must(os.Rename(nlserver+".new", nlserver))
		}, nil},
		{"behind a script", func(w *world.World) { w.Must(wrapped("")(w)) }, func(w *world.World) {
			real := filepath.Join(w.Home, "bin", "nlserver.real")
			w.Run("cp", real, real+".new")
			w.Must(os.Rename(real+".new", real))
		}, []string{"Unknown option", "-setimsauth"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			c.before(w)
			w.Faults(`{"options": ["setimsauth"], "write_delay": "10m"}`)
			_, first := w.NewSecret("prod")
			w.StartDaemon()
			w.WaitsAt("write_delay")
			w.Faults(`{"options": ["setimsoauth"]}`)
			c.after(w)
			w.Release()
			w.InSync(1)
			w.Holds("prod", first)
			_, second := w.NewSecret("prod")
			if c.says != nil {
				w.Logged(append(c.says, "credential not applied")...)
				w.Pass()
			}
			w.InSync(2)
			w.Holds("prod", second)
			w.Ran(2, "end", "help")
			w.Ran(2, "end", "reload")
			runs := allRuns(w)
			slices.Reverse(runs)
			last := slices.IndexFunc(runs, func(r container.Run) bool { return r.Event == "end" && r.Kind == "set" })
			if got := runs[last].Option; got != "setimsoauth" {
				t.Errorf("applied with -%s", got)
			}
		})
	}
}

// nlserver takes its time: nothing else is held up by it, and a daemon that is to end waits for it.
func TestNlserverTakesLong(t *testing.T) {
	t.Parallel()
	long := 2 * time.Second
	if *full {
		long = 50 * time.Second
	}
	for _, c := range []struct {
		name string
		end  bool
	}{{"and the daemon goes on", false}, {"and the daemon is to end", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{Instances: []string{"prod", "stage"}, Campaign: "timeout: 60s"})
			w.Pass()
			reloads := w.CountRuns("end", "reload")
			w.Faults(`{"write_delay": "10m", "times": 1, "only_for": ["prod"]}`)
			_, second := w.NewSecret("prod")
			w.WaitsAt("write_delay")
			w.Blank("stage")
			w.OnDisk("stage", secrets["stage"])
			if c.end {
				began := time.Now()
				w.Signal(syscall.SIGTERM)
				select {
				case <-w.Running.Ended():
					t.Error("it did not wait for nlserver")
				case <-time.After(long):
				}
				w.Release()
				w.Ended(0)
				t.Logf("it ended after %v", time.Since(began))
				w.Holds("prod", second)
				w.Ran(3, "end", "set") // it was waited for
				w.Ran(reloads, "start", "reload")
				w.StartDaemon()
			} else {
				time.Sleep(long)
				w.Release()
			}
			w.OneInSync("prod", 2)
			w.OneInSync("stage", 1)
			w.Holds("prod", second)
			w.Holds("stage", secrets["stage"])
			w.Ran(3, "end", "set")
			w.Ran(reloads+1, "end", "reload")
		})
	}
}

// An nlserver that prints without end fills neither memory nor log, whether it works or not.
func TestNlserverPrintsWithoutEnd(t *testing.T) {
	t.Parallel()
	size := 100 << 20
	if *full {
		size = 1 << 30
	}
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprintf("fails=%v", fails), func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{Programs: world.Plain()})
			failing := map[bool]string{true: `, "fail": "before"`}[fails]
			w.Faults(fmt.Sprintf(`{"print_bytes": %d%s}`, size, failing))
			_, second := w.NewSecret("prod")
			if fails {
				w.Is("prod", "pending/apply_failed", "exit status 1", "iRc=")
				w.Holds("prod", secrets["prod"])
				w.Faults(fmt.Sprintf(`{"print_bytes": %d}`, size))
				w.Pass()
			}
			w.InSync(2)
			w.Holds("prod", second)
			w.Ran(2, "end", "reload")
			if peak := memory(t, w.Running.PID(), "VmHWM"); peak > 64<<20 {
				t.Errorf("the daemon had %d MiB", peak>>20)
			}
			if got := len(w.Log()); got > 64<<10 {
				t.Errorf("a log of %d bytes", got)
			}
		})
	}
}

// memory is a line of what the kernel says about a process, in bytes.
func memory(t *testing.T, pid int, line string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == line+":" {
			kilobytes, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	t.Fatalf("no %s in %s", line, status)
	return 0
}

// Not even a piece of the secret shows when nlserver prints it wrapped, spaced, or encoded together with more.
func TestNlserverPrintsTheSecretInPieces(t *testing.T) {
	t.Parallel()
	for _, faults := range []string{`{"print_pieces": true}`, `{"print_pieces": true, "fail": "before", "times": 1}`} {
		t.Run(faults, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			w.Faults(faults)
			_, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.Eventually("it is applied", func() bool {
				w.Signal(syscall.SIGUSR1)
				s, err := w.Asker().Status(w.Ctx)
				return err == nil && s.Applied(1)
			})
			status, _, _ := w.RunCommand("status", "--json")
			for i := range len(secret) - 8 {
				if strings.Contains(w.Log()+status, secret[i:i+8]) {
					t.Fatalf("a piece of the secret shows\n%s", w.Log())
				}
			}
			if !strings.Contains(w.Log(), "[redacted]") {
				t.Error("the log does not tell that an output was left out")
			}
		})
	}
}

// A child of nlserver lives on with all that it inherited, and may be writing: what was applied stays, the next apply waits for the
// end of the child, and the state says so.
func TestNlserverLeavesAChild(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.Faults(`{"fork_child": "1h", "times": 1}`)
	_, second := w.NewSecret("prod")
	w.InSync(2)
	w.Blank("prod")
	w.OnDisk("prod", second)
	_, third := w.NewSecret("prod")
	w.AwaitStatus("it waits", func(s container.Status) bool {
		return strings.Contains(world.One(s, "prod").LastError, "still running") && world.One(s, "prod").AppliedVersion == 2
	})
	w.Holds("prod", second)
	w.Ran(2, "start", "set")
	w.Blank("prod")
	w.OnDisk("prod", second)
	child := slices.IndexFunc(allRuns(w), func(r container.Run) bool { return r.ChildPID != 0 })
	w.Must(syscall.Kill(allRuns(w)[child].ChildPID, syscall.SIGKILL))
	w.Signal(syscall.SIGUSR1)
	w.InSync(3)
	w.Holds("prod", third)
	w.Ran(3, "end", "set")
}

// A stop does not wait for a child of nlserver that has written nothing yet. The next daemon does, and no second nlserver runs beside it.
func TestStopWhileAChildOfNlserverIsToWrite(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.Must(wrapped(`setsid "$0.real" "$@" </dev/null >/dev/null 2>&1 & exit 0`)(w))
	w.Faults(`{"hang": true, "times": 1}`)
	_, second := w.NewSecret("prod")
	w.WaitsAt("hang")
	w.Stop()
	if strings.Contains(w.Log(), "left behind") {
		t.Errorf("the stop waited, and gave up\n%s", w.Log())
	}
	w.StartDaemon()
	w.AwaitStatus("it waits", func(s container.Status) bool {
		return strings.Contains(world.One(s, "prod").LastError, "still running")
	})
	w.Ran(2, "start", "set")
	w.Release()
	w.InSync(2)
	w.Holds("prod", second)
}
