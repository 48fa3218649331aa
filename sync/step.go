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
func (d *Daemon) do(s step, work func()) {
	s.began = time.Now()
	d.underWay = append(d.underWay, &s)
	var overdue *time.Timer
	overdue = time.AfterFunc(s.bound, func() {
		d.lock.take()
		defer d.unlock()
		if again := d.checkHang(&s); again > 0 {
			overdue.Reset(again)
		}
	})
	d.changed = d.changed || s.commands // drift that is being applied over is shown no more
	d.unlock()
	work()
	d.lock.take()
	overdue.Stop()
	if d.left {
		runtime.Goexit()
	}
	d.underWay = slices.DeleteFunc(d.underWay, func(other *step) bool { return other == &s })
	if s.hangs {
		d.log.Info("the step that did not end has ended", "instance", s.names(), "step", s.what, "duration", time.Since(s.began))
	}
	d.tell()
}

// checkHang logs that a step hangs, and before that returns when to look again.
func (d *Daemon) checkHang(s *step) (again time.Duration) {
	switch {
	case d.left || !slices.Contains(d.underWay, s): // nobody waits for it
	case s.commands && d.cfg.CommandRuns():
		s.late = false
		return s.bound
	case !s.late:
		s.late = true
		return hangGrace
	default:
		s.hangs = true
		d.tell() // who waits for this step waits no more
		d.log.Error("a step does not end, and nothing else is done there until it does; see whether the disk or mount answers",
			"instance", s.names(), "step", s.what, "duration", time.Since(s.began))
	}
	return 0
}

// onFile is do for a step on the file of an instance.
func (d *Daemon) onFile(in *instance, what action, s step, work func()) {
	in.busy, s.of = what, []*instance{in}
	d.do(s, work)
	in.busy = actionNone
}

// hung returns the step of an instance that hangs, or nil.
func (d *Daemon) hung(in *instance) *step {
	for _, s := range d.underWay {
		if s.hangs && slices.Contains(s.of, in) {
			return s
		}
	}
	return nil
}

// commandStep reports whether a step that runs commands is under way.
func (d *Daemon) commandStep() bool {
	return slices.ContainsFunc(d.underWay, func(s *step) bool { return s.commands })
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

// Times of a stop.
const (
	finishTime = 1500 * time.Millisecond // after which steps that run no command are called off
	leaveTime  = 2 * time.Second         // after which they are left behind
	saveTime   = time.Second             // for the last records
)

// stop ends all goroutines, and saves what is unsaved.
func (d *Daemon) stop(cancel func()) {
	d.ended = true
	d.cutPolls()
	d.tell()
	defer time.AfterFunc(finishTime, cancel).Stop()
	d.windUp(leaveTime, 0)
	hung := d.running
	for _, in := range d.instances {
		if in.record.unsaved && !in.record.saving {
			d.spawn(func() { d.save(in) })
		}
	}
	d.windUp(saveTime, hung)
	d.publish()
	d.left = true
	var what []string
	for _, s := range d.underWay {
		what = append(what, s.names()+": "+s.what)
	}
	if len(what) > 0 {
		d.log.Error("steps that do not end are left behind", "step", strings.Join(what, ", "))
	}
}

// windUp waits until no more than rest goroutines are left: for commands as long as they run, for others as long as limit.
func (d *Daemon) windUp(limit time.Duration, rest int) {
	for until := time.Now().Add(limit); d.running > rest && time.Now().Before(until); {
		d.wait(time.Now().Add(50*time.Millisecond), nil)
		if d.commandStep() && d.cfg.CommandRuns() {
			until = time.Now().Add(limit)
		}
	}
}
