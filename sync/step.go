package sync

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// step is work that waits for a disk, a process or a network, and so is done without the lock.
type step struct {
	what     string // for people
	of       []*instance
	commands bool          // it runs commands, which have a time limit of their own
	onFile   bool          // it is what its instance is busy with
	bound    time.Duration // of what is no command
	began    time.Time
	late     bool // it was found beyond its bound once
	hangs    bool // that was logged
}

// Bounds of steps. What takes longer hangs: the mount does not answer, or the disk is frozen.
const (
	fileBound   = 10 * time.Second // above the 5 s for which a Sink waits for whoever is writing the file
	applyBound  = 30 * time.Second // for what comes before and after the command, and for recovery
	pollBound   = time.Minute      // above what a login and two requests take, and the wait for others' logins
	othersBound = 5 * time.Second  // more for each other source, which may be read before, over the same connection
	hangGrace   = time.Second      // for a command that has just ended, and a process that was stopped (SIGSTOP)
)

// do runs work as a step, without the lock, and holds it again afterwards. It does not return in a step that was left behind.
func (d *Daemon) do(s *step, work func()) {
	s.began = time.Now()
	for _, in := range s.of {
		in.steps = append(in.steps, s)
	}
	var overdue *time.Timer
	overdue = time.AfterFunc(s.bound, func() {
		d.lock.take()
		defer d.unlock()
		if again := d.checkHang(s); again > 0 {
			overdue.Reset(again)
		}
	})
	if s.commands { // drift that is being applied over is shown no more
		d.wake(s.of...)
	}
	d.unlock()
	work()
	d.lock.take()
	overdue.Stop()
	if d.phase == left {
		runtime.Goexit()
	}
	for _, in := range s.of {
		in.steps = slices.DeleteFunc(in.steps, func(other *step) bool { return other == s })
	}
	if s.hangs {
		d.log.Info("the step that did not end has ended", "instance", s.names(), "step", s.what, "duration", time.Since(s.began))
	}
	d.wake(s.of...)
}

// checkHang logs that a step hangs, and before that returns when to look again.
func (d *Daemon) checkHang(s *step) (again time.Duration) {
	switch {
	case d.phase == left || !slices.Contains(s.of[0].steps, s): // nobody waits for it
	case s.commands && d.cfg.CommandRuns():
		s.late = false
		return s.bound
	case !s.late:
		s.late = true
		return hangGrace
	default:
		s.hangs = true
		d.wake(s.of...) // whoever waits for this step waits no more
		if s == d.activating {
			d.wakeAll() // nor does whoever waits for a later one
		}
		d.log.Error("a step does not end, and nothing else is done there until it does; see whether the disk or mount answers",
			"instance", s.names(), "step", s.what, "duration", time.Since(s.began))
	}
	return 0
}

// onFile is do for a step on the file of an instance.
func (d *Daemon) onFile(in *instance, what action, s *step, work func()) {
	in.busy, s.of, s.onFile = what, []*instance{in}, true
	d.do(s, work)
	in.busy = actionNone
}

// hung returns the step of an instance that hangs, or nil.
func (in *instance) hung() *step {
	for _, s := range in.steps {
		if s.hangs {
			return s
		}
	}
	return nil
}

// fileHangs reports whether the step on the file of an instance hangs.
func (in *instance) fileHangs() bool {
	return slices.ContainsFunc(in.steps, func(s *step) bool { return s.hangs && s.onFile })
}

// underWay are all steps under way.
func (d *Daemon) underWay() (all []*step) {
	for _, in := range d.instances {
		for _, s := range in.steps {
			if s.of[0] == in { // else it was seen
				all = append(all, s)
			}
		}
	}
	return all
}

// commandStep reports whether a step that runs commands is under way.
func (d *Daemon) commandStep() bool {
	return slices.ContainsFunc(d.underWay(), func(s *step) bool { return s.commands })
}

func (s *step) names() string {
	names := make([]string, len(s.of))
	for i, in := range s.of {
		names[i] = in.Name
	}
	return strings.Join(names, ", ")
}

func (s *step) String() string {
	return fmt.Sprintf("a step does not end: %s, begun %s", s.what, s.began.UTC().Format(time.RFC3339))
}
