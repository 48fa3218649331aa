package faults_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/world"
)

// A war over the file ends: the brake holds over kill -9 and restart, lets new versions through, and SIGHUP lets go.
func TestDriftWarEnds(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"splice", "nlserver"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{Settings: "drift: {max_reverts: 3, revert: " + mode + "}"})
			for i := range 3 {
				w.Blank("prod")
				w.AwaitStatus("the revert", func(s container.Status) bool {
					return world.One(s, "prod").RevertedTotal == i+1 && s.Is("in_sync")
				})
			}
			sets := w.CountRuns("end", "set")
			w.Blank("prod")
			blank := w.Read("prod")
			w.Is("prod", "drift/drift_brake", "drift.max_reverts")
			w.Logged("level=ERROR", "another program keeps changing the credential", "remedy=")
			w.Kill()
			w.StartDaemon()
			w.Is("prod", "drift")
			w.Pass()
			w.Is("prod", "drift")
			if !bytes.Equal(w.Read("prod"), blank) {
				t.Error("the file was changed after the brake")
			}
			if n := strings.Count(w.Daemons[0].Log(), "level=ERROR"); n != 1 {
				t.Errorf("%d alarms\n%s", n, w.Daemons[0].Log())
			}
			w.Ran(sets, "end", "set")

			_, secret := w.NewSecret("prod")
			w.InSync(2)
			w.Holds("prod", secret)
			w.Blank("prod")
			w.Is("prod", "drift")
			w.Signal(syscall.SIGHUP)
			w.AwaitStatus("the revert", func(s container.Status) bool { return s.Is("in_sync") && world.One(s, "prod").RevertedTotal == 4 })
			w.Holds("prod", secret)
		})
	}
}

// attacker is a tool that knows better: it writes a credential of its own 50 times a second, in every way in which the file
// is there all the time. What else it finds in the file it keeps, and looks whether that is what it last wrote.
type attacker struct {
	w       *world.World
	writes  atomic.Int32
	stop    context.CancelFunc
	stopped chan error // what was wrong
}

func attack(w *world.World) *attacker {
	ctx, stop := context.WithCancel(w.Ctx)
	a := &attacker{w: w, stop: stop, stopped: make(chan error, 1)}
	go func() { a.stopped <- a.run(ctx, w.Foreign["prod"]) }()
	return a
}

func (a *attacker) run(ctx context.Context, foreign []byte) error {
	path := a.w.File("prod")
	styles := []editors.Style{editors.InPlace, editors.Pieces, editors.Rename}
	ticker := time.NewTicker(time.Second / 50)
	defer ticker.Stop()
	for n := 0; ; n++ {
		document, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if got := world.ForeignBytes(document); !bytes.Equal(got, foreign) {
			return fmt.Errorf("before write %d, foreign bytes changed: %s", n, world.FirstDifference(foreign, got))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if document, err = os.ReadFile(path); err != nil {
			return err
		}
		document = document[:bytes.LastIndexByte(document, '/')] // of the root's end
		document = withValue(document, "authIMSTAClientSecret", "of-the-other-tool-"+strconv.Itoa(n))
		document = fmt.Appendf(document, "/serverconf>%*s", n%10, "\n")
		foreign = world.ForeignBytes(document)
		if err := editors.Write(path, styles[n%len(styles)], document); err != nil {
			return err
		}
		a.writes.Add(1)
	}
}

// written waits for so many more writes.
func (a *attacker) written(more int) {
	a.w.T.Helper()
	from := int(a.writes.Load())
	for int(a.writes.Load()) < from+more {
		select {
		case err := <-a.stopped:
			a.w.T.Fatalf("the attacker gave up: %v\n%s", err, a.w.Log())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// A tool that rewrites the credential 50 times a second is answered until the brake. From then on the daemon only watches:
// it costs little, says and writes nothing, also after kill -9 in the middle of it; and when the war is over, SIGHUP puts
// all right.
func TestDriftWarOfFiftyASecond(t *testing.T) {
	t.Parallel()
	writes := 200
	if *full {
		writes = 3000
	}
	w, secrets := world.Started(t, container.Options{Settings: "drift: {max_reverts: 20}\nwatch: {poll: 1s, events: off}"}) // that there are none is told at its own time
	war := attack(w)
	w.Is("prod", "drift/drift_brake", "drift.max_reverts")
	w.Logged("another program keeps changing the credential") // when the count is on record
	reverts := func() int {
		s, err := w.Asker().Status(w.Ctx)
		w.Must(err)
		return world.One(s, "prod").RevertedTotal
	}
	if got := reverts(); got != 20 {
		t.Errorf("%d reverts until the brake", got)
	}
	for range 2 {
		record, err := os.Stat(filepath.Join(w.StateDir(), "prod.json"))
		w.Must(err)
		began, used, said := time.Now(), processorTime(t, w.Running.PID()), news(w.Running.Log())
		war.written(writes / 2)
		took, used := time.Since(began), processorTime(t, w.Running.PID())-used
		t.Logf("braked: %v of processor time in %v, %v a write", used, took, used/time.Duration(writes/2))
		if used > took/2 {
			t.Errorf("it took %v of processor time in %v to watch %d writes", used, took, writes/2)
		}
		if more := news(w.Running.Log()) - said; more != 0 {
			t.Errorf("%d more lines are more than debugging\n%s", more, w.Running.Log())
		}
		if now, err := os.Stat(filepath.Join(w.StateDir(), "prod.json")); err != nil || !os.SameFile(record, now) {
			t.Errorf("the record was written anew, %v", err)
		}
		w.Is("prod", "drift/drift_brake", "drift.max_reverts")
		if len(w.Daemons) == 1 {
			w.Kill()
			w.StartDaemon()
			w.Is("prod", "drift", "drift.max_reverts")
			w.Eventually("it is alarmed again", func() bool {
				return strings.Contains(w.Running.Log(), "another program keeps changing")
			})
			w.Pass() // which is past all that a start has to say
		}
	}
	if got := reverts(); got != 20 {
		t.Errorf("%d reverts after the brake", got-20)
	}
	w.Ran(1, "start", "set")
	if n := strings.Count(w.Daemons[0].Log(), "level=ERROR"); n != 1 {
		t.Errorf("%d alarms\n%s", n, w.Daemons[0].Log())
	}

	war.stop()
	if err := <-war.stopped; err != nil {
		t.Errorf("%v\n%s", err, w.Log())
	}
	w.Foreign["prod"] = world.ForeignBytes(w.Read("prod"))
	w.Is("prod", "drift/drift_brake", "drift.max_reverts")
	w.Signal(syscall.SIGHUP)
	w.OnDisk("prod", secrets["prod"])
	w.InSync(1)
	w.Ran(1, "start", "set")
}

// news counts the lines of a log that are more than debugging.
func news(log string) int {
	return strings.Count(log, "level=") - strings.Count(log, "level=DEBUG")
}

// processorTime is what a process has used until now.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from the third on
	var ticks int64
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ, the same on all of Linux
}
