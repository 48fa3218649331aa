package sync

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// phase is how far a Daemon is on its way to its end. Only a Drain that fails goes back.
type phase int

const (
	working  phase = iota
	draining       // no command and no poll begins; what guards the files does
	drained        // no step begins
	ended          // nothing is decided any more
	left           // the steps that are still under way are left behind
)

// ErrEnded says that Run has returned, or is about to.
var ErrEnded = errors.New("the daemon is stopping; try again once it runs")

// How long steps may take to end while no command runs.
const (
	drainTime  = 6 * time.Second
	finishTime = 1500 * time.Millisecond // in a stop, after which they are called off
	leaveTime  = 2 * time.Second         // and after which they are left behind
	saveTime   = time.Second             // for the last records
)

// Drain is for a Daemon that is to be stopped and replaced by another in this process. It waits for commands, cuts polls short, and
// returns when no step is under way and none begins any more. When a step does not end, Run goes on as before, and the error says so.
func (d *Daemon) Drain() error {
	d.lock.take()
	defer d.unlock()
	d.phase = max(d.phase, draining)
	d.cutRequests()
	for until := time.Now().Add(drainTime); d.phase < ended; d.wait(time.Now().Add(drainTime/10), &d.some, nil) {
		steps := d.underWay()
		if len(steps) == 0 {
			break
		}
		hanging := slices.IndexFunc(steps, func(s *step) bool { return s.hangs })
		switch {
		case hanging >= 0 || time.Now().After(until):
			s := slices.MinFunc(steps, func(a, b *step) int { return a.began.Compare(b.began) })
			if hanging >= 0 {
				s = steps[hanging]
			}
			d.phase = working
			d.wakeAll()
			return fmt.Errorf("instance %s: %v", s.names(), s)
		case d.commandStep():
			until = time.Now().Add(drainTime)
		case !slices.ContainsFunc(d.sources, func(s *source) bool { return s.cut != nil }):
			d.phase = drained
		}
	}
	if d.phase >= ended {
		return ErrEnded
	}
	d.phase = drained
	return nil
}

func (d *Daemon) cutRequests() {
	for _, s := range d.sources {
		if s.cut != nil {
			s.cut()
		}
	}
	for _, in := range d.instances {
		in.cutProbe()
	}
}

// stop ends all goroutines, and saves what is unsaved. cancel calls off the steps that run no command.
func (d *Daemon) stop(cancel func()) {
	d.phase = ended
	d.cutRequests()
	d.wakeAll()
	defer time.AfterFunc(finishTime, cancel).Stop()
	d.windUp(leaveTime, 0)
	hung := d.running
	for _, in := range d.instances {
		if in.record.unsaved && !in.record.saving {
			d.spawn(func() { d.save(in) })
		}
	}
	d.windUp(saveTime, hung)
	d.wakeAll()
	d.tell()
	d.phase = left
	var what []string
	for _, s := range d.underWay() {
		what = append(what, s.names()+": "+s.what)
	}
	if len(what) > 0 {
		d.log.Error("steps that do not end are left behind", "step", strings.Join(what, ", "),
			"remedy", "see whether the disk or mount answers")
	}
}

// windUp waits until no more than rest goroutines are left: for commands as long as they run, for others as long as limit.
func (d *Daemon) windUp(limit time.Duration, rest int) {
	for until := time.Now().Add(limit); d.running > rest && time.Now().Before(until); {
		d.wait(time.Now().Add(50*time.Millisecond), &d.some, nil)
		if d.commandStep() && d.cfg.CommandRuns() {
			until = time.Now().Add(limit)
		}
	}
}
