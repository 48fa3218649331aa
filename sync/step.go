package sync

import (
	"fmt"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
)

// step is work in a goroutine of its own, which the loop never waits for.
type step struct {
	what     string // for people
	of       []*instance
	commands bool // it runs commands, which have a time limit of their own
	bound    time.Duration

	began  time.Time
	since  time.Time // what counts against the bound: since the begin, or the last command
	lateAt time.Time // when the loop first found it beyond the bound
	hangs  bool      // that was logged
}

// Bounds of steps. What takes longer hangs: the mount does not answer, or the disk is frozen.
const (
	fileBound   = 10 * time.Second // above the 5 s for which a Sink waits for whoever is writing the file
	applyBound  = 30 * time.Second // for what comes before and after the command, and for recovery
	pollBound   = time.Minute      // above what a login and two requests take, and the wait for others' logins
	othersBound = 5 * time.Second  // more for each other source, which may be read before, over the same connection
	hangGrace   = time.Second      // for steps that ended in time, in a process that was stopped (SIGSTOP) and did not notice
)

// start runs work in a goroutine and hands the outcome it returns to the loop.
func (d *Daemon) start(s step, work func() func(now time.Time)) {
	s.began = time.Now()
	s.since = s.began
	d.steps = append(d.steps, &s)
	go func() {
		outcome := work()
		select {
		case d.done <- func(now time.Time) {
			d.steps = slices.DeleteFunc(d.steps, func(other *step) bool { return other == &s })
			if s.hangs {
				d.log.Info("the step that did not end has ended", keyInstance, s.names(), keyStep, s.what, keyDuration, now.Sub(s.began))
			}
			outcome(now)
		}:
		case <-d.left:
		}
	}()
}

// advanceHangs logs which steps hang, once each.
func (d *Daemon) advanceHangs(now time.Time) (again time.Time) {
	for _, s := range d.steps {
		if s.hangs {
			continue
		}
		if s.commands && d.cfg.CommandRuns() {
			s.since, s.lateAt = now, time.Time{}
		}
		at := s.since.Add(s.bound)
		if s.lateAt.IsZero() && !now.Before(at) {
			s.lateAt = now
		}
		if !s.lateAt.IsZero() {
			at = s.lateAt.Add(hangGrace)
		}
		if s.hangs = !now.Before(at); s.hangs {
			d.log.Error("a step does not end, and nothing else is done there until it does; see whether the disk or mount answers",
				keyInstance, s.names(), keyStep, s.what, keyDuration, now.Sub(s.began))
		} else {
			again = earlier(again, at)
		}
	}
	return again
}

// hung returns the step of an instance that hangs, or nil.
func (d *Daemon) hung(in *instance) *step {
	for _, s := range d.steps {
		if s.hangs && slices.Contains(s.of, in) {
			return s
		}
	}
	return nil
}

// commandStep reports whether a step that runs commands is under way.
func (d *Daemon) commandStep() bool {
	return slices.ContainsFunc(d.steps, func(s *step) bool { return s.commands })
}

func (s *step) names() string {
	names := make([]string, len(s.of))
	for i, in := range s.of {
		names[i] = in.Name
	}
	return credential.List(names)
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

// windUp waits until no more than rest steps are under way: for commands as long as they run, for others as long as limit.
func (d *Daemon) windUp(limit time.Duration, rest int) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for until := time.Now().Add(limit); len(d.steps) > rest && time.Now().Before(until); {
		select {
		case outcome := <-d.done:
			outcome(time.Now())
		case now := <-ticker.C:
			if d.commandStep() && d.cfg.CommandRuns() {
				until = now.Add(limit)
			}
		}
	}
}

// leave gives up the steps that are still under way.
func (d *Daemon) leave() {
	close(d.left)
	var what []string
	for _, s := range d.steps {
		what = append(what, s.names()+": "+s.what)
	}
	if len(what) > 0 {
		d.log.Error("steps that do not end are left behind", keyStep, credential.List(what))
	}
}
