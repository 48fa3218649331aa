package faults_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/world"
)

// The daemon is killed at the Nth system call of a rotation and of a revert, N = 1, 2, 3 … until there are no more: the next
// daemon ends in sync, with nothing left behind, and every step of activation was done, at most one of them twice.
// "together" kills what runs of nlserver at that moment with it; "alone" lets that write on.
func TestKilledAtEverySystemCall(t *testing.T) {
	t.Parallel()
	tracer := buildTracer(t)
	for _, change := range []change{rotation, revert, revertOfNewFile} {
		calls := listCalls(t, tracer, change)
		for _, together := range []bool{false, true} {
			name := change.name + map[bool]string{false: ", alone", true: ", together"}[together]
			if together && (change.name != rotation.name || !*full) {
				continue // a revert runs nothing
			}
			inParts(t, name, calls, func(s *sweep, n int) {
				args := []string{"-at", fmt.Sprint(n)}
				if together {
					args = append(args, "-children")
				}
				s.trace(tracer, args...)
				change.begin(s)
				at := s.hits(change, nil)
				if at.N == 0 {
					return
				}
				select {
				case <-s.w.Running.Ended():
				case <-time.After(world.Patience):
					s.w.T.Fatal("the daemon was killed and lives")
				}
				s.w.Running = nil
				s.w.StartDaemon()
				s.settles(at)
				change.done(s, at)
			})
		}
	}
}

// A sweep does the same to one world, over and over again.
type sweep struct {
	w       *world.World
	version int
	secret  string // of this version
	tracing *tracing
	began   int // lines in the log of runs when the change began
	traced  *container.Daemon
	logged  int // bytes in its log then

	interfered int // cases in which the call was reached
}

// change is what goes on while the daemon is interrupted.
type change struct {
	name  string
	begin func(*sweep)
	ready func(*sweep) bool  // nobody interfered and it is all but done
	done  func(*sweep, call) // demands that it is done, whatever happened at a call
}

var rotation = change{
	name: "rotation",
	begin: func(s *sweep) {
		s.version, s.secret = s.w.NewSecret("prod")
		s.w.Signal(syscall.SIGUSR1)
	},
	ready: func(s *sweep) bool {
		return slices.ContainsFunc(s.newRuns(), func(r container.Run) bool { return r.Event == "end" && r.Kind == "restart" })
	},
	done: func(s *sweep, at call) {
		s.w.T.Helper()
		s.activated(at)
		s.w.Holds("prod", s.secret)
		s.w.Check()
	},
}

// revert has another process empty the secret.
var revert = change{
	name:  "revert",
	begin: func(s *sweep) { s.w.Blank("prod") },
	ready: func(s *sweep) bool { return s.w.Attribute("prod", "authIMSTAClientSecret") != "" },
	done: func(s *sweep, at call) {
		s.w.T.Helper()
		s.w.Holds("prod", s.secret)
		said := strings.Contains(s.newLog(), "applying again instead")
		if n := count(s.newRuns(), "start", "set"); n > 0 && !said {
			s.w.T.Errorf("%v: %d applies for a revert\n%s", at, n, s.w.Running.Log())
		}
		for _, kind := range []string{"reload", "restart"} {
			if n := count(s.newRuns(), "start", kind); n > 2 {
				s.w.T.Errorf("%v: %s ran %d times\n%s", at, kind, n, s.w.Running.Log())
			}
		}
		s.w.Check()
	},
}

// revertOfNewFile has it do that with a new file.
var revertOfNewFile = change{
	name: "revert of a new file",
	begin: func(s *sweep) {
		blank := world.Replaced(s.w.T, s.w.Read("prod"), s.w.Attribute("prod", "authIMSTAClientSecret"), "")
		s.w.Must(editors.Write(s.w.File("prod"), editors.Rename, blank))
	},
	ready: revert.ready,
	done:  revert.done,
}

// startSweep sets up a world in sync that does nothing by itself: what a daemon calls the system for is the change's alone.
func startSweep(t *testing.T, programs container.Programs) *sweep {
	w := world.New(t, container.Options{Programs: programs, Campaign: "activate: {restart: [web]}",
		Settings: "watch: {poll: 1h}\nlog: {level: info, format: text}"})
	s := &sweep{w: w}
	s.version, s.secret = w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(s.version)
	w.Pass() // over when all is on record
	return s
}

// runsModule has the module run that is restarted: one that does not would be looked for, for 2 s and with thousands of calls.
func (s *sweep) runsModule() {
	s.w.T.Helper()
	s.w.Faults(`{"modules": "watchdog"}`)
	startWatchdog(s.w, "web")
}

// listCalls returns the calls of a change that nobody interferes with.
func listCalls(t *testing.T, tracer string, c change) []call {
	s := startSweep(t, world.Plain())
	s.runsModule()
	s.trace(tracer, "-list")
	c.begin(s)
	s.hits(c, nil)
	if len(s.tracing.calls) < 20 {
		t.Fatalf("a %s has only %d system calls", c.name, len(s.tracing.calls))
	}
	names := map[string]int{}
	for _, c := range s.tracing.calls {
		names[c.Call]++
	}
	t.Logf("a %s has %d system calls: %v", c.name, len(s.tracing.calls), names)
	return s.tracing.calls
}

// undisturbed has a change happen that nobody interferes with, and lets the daemon run free when all of it is on record.
func (s *sweep) undisturbed(c change) {
	s.w.T.Helper()
	c.begin(s)
	s.w.Eventually("the "+c.name+" is done", func() bool { return c.ready(s) })
	s.w.Pass()
	s.tracing.leave()
}

// killPoints are the calls at which to interfere: all, and some more, as they are not the same number each time. The short form
// takes those that change what others see.
func killPoints(calls []call) (points []int) {
	if *full {
		for n := range len(calls) + 20 {
			points = append(points, n+1)
		}
		return points
	}
	seen := map[string]int{}
	for _, c := range calls {
		switch c.Call {
		case "renameat", "renameat2", "linkat", "unlinkat", "pwrite64", "fsync", "flock", "clone", "waitid":
			if seen[c.Call]++; seen[c.Call] <= 6 {
				points = append(points, c.N)
			}
		}
	}
	return points
}

// inParts runs the cases of a sweep, some at a time in a world of their own: a log that is too long is slow to search.
func inParts(t *testing.T, name string, calls []call, one func(s *sweep, n int)) {
	for part := range slices.Chunk(killPoints(calls), 60) {
		t.Run(fmt.Sprintf("%s, calls %d to %d", name, part[0], part[len(part)-1]), func(t *testing.T) {
			t.Parallel()
			s := startSweep(t, world.Plain())
			s.runsModule()
			for _, n := range part {
				if one(s, n); t.Failed() {
					return
				}
			}
			// How many calls a change takes varies with a poll, or a record to be written first: the late ones may not come.
			if s.interfered == 0 && part[0] < len(calls)/3 {
				t.Error("nothing was ever interfered with")
			}
		})
	}
}

func (s *sweep) trace(tracer string, args ...string) {
	s.w.T.Helper()
	s.began = 0
	s.began = len(s.newRuns())
	s.traced, s.logged = s.w.Running, len(s.w.Running.Log())
	s.tracing = trace(s.w, tracer, args...)
}

// hits returns the call that was interfered with; its number is 0 when the change was done before. The daemon runs free then, and
// before that, there may be something to be done while it does not.
func (s *sweep) hits(c change, meanwhile func(call)) (at call) {
	s.w.T.Helper()
	s.w.Eventually("the tracer interferes, or the "+c.name+" is done", func() bool {
		select {
		case at = <-s.tracing.hit:
			return true
		default:
			return c.ready(s)
		}
	})
	if at.N == 0 {
		// What remains to be recorded is not announced to anybody.
		select {
		case at = <-s.tracing.hit:
		case <-time.After(300 * time.Millisecond):
		}
	}
	if at.N > 0 && meanwhile != nil {
		meanwhile(at)
	}
	s.tracing.leave()
	select {
	case at = <-s.tracing.hit: // in the last moment
	default:
	}
	if at.N > 0 {
		s.interfered++
	}
	return at
}

// settles waits until the daemon is in sync. One that waits for an nlserver is asked to look again.
func (s *sweep) settles(at call) {
	s.w.T.Helper()
	next := time.Now().Add(time.Second)
	s.w.Eventually(fmt.Sprintf("in sync again after %v", at), func() bool {
		status, err := s.w.Asker().Status(s.w.Ctx)
		if err == nil && world.One(status, "prod").State == "degraded" || time.Now().After(next) {
			next = time.Now().Add(time.Second)
			s.w.Signal(syscall.SIGUSR1)
		}
		return err == nil && status.Applied(s.version)
	})
	// A revert is recorded a little after it was told.
	s.w.Eventually(fmt.Sprintf("nothing half done is left after %v", at), func() bool {
		partial, err := filepath.Glob(filepath.Join(s.w.StateDir(), "*.partial"))
		before, err2 := filepath.Glob(filepath.Join(s.w.StateDir(), "*.before"))
		return err == nil && err2 == nil && len(partial)+len(before) == 0
	})
}

// newRuns are the lines of the log of runs since the change began.
func (s *sweep) newRuns() (runs []container.Run) {
	s.w.T.Helper()
	s.w.Eventually("the log of runs can be read", func() bool {
		all, err := s.w.Runs() // its last line may be under way
		if err == nil {
			runs = all[s.began:]
		}
		return err == nil
	})
	return runs
}

// newLog is what was logged since the change began, by the daemon that runs now.
func (s *sweep) newLog() string {
	log := s.w.Running.Log()
	if s.w.Running == s.traced {
		log = log[s.logged:]
	}
	return log
}

func count(runs []container.Run, event, kind string) (n int) {
	for _, r := range runs {
		if r.Event == event && r.Kind == kind {
			n++
		}
	}
	return n
}

// activated demands that each step of activation was done after the last apply, and that no more than one run was begun twice:
// the one that the daemon died, or failed, in.
func (s *sweep) activated(at call) {
	s.w.T.Helper()
	runs := s.newRuns()
	last := -1
	more := 0
	for i, r := range runs {
		if r.Kind == "set" {
			last = i
		}
	}
	for _, kind := range []string{"set", "reload", "restart"} {
		more += count(runs, "start", kind) - 1
		if count(runs, "start", kind) == 0 || kind != "set" && count(runs[last+1:], "end", kind) == 0 {
			s.w.T.Errorf("%v: %s did not run: %+v\n%s", at, kind, runs, s.w.Running.Log())
		}
	}
	if more > 1 {
		s.w.T.Errorf("%v: %d runs more than needed: %+v\n%s", at, more, runs, s.w.Running.Log())
	}
}
