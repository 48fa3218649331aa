package sync

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// Daemon keeps instances equal to their sources. All fields below the line belong to the goroutine of Run.
type Daemon struct {
	cfg      Config
	log      *slog.Logger
	status   atomic.Pointer[Status]
	wake     chan struct{}            // 1 slot: look at every instance again
	checkAll atomic.Bool              // a full check was asked for
	requests chan *request            // checks and drains
	done     chan func(now time.Time) // outcomes of steps
	ready    chan struct{}
	ended    chan struct{} // closed when Run takes no more requests
	left     chan struct{} // closed when Run takes no more outcomes

	// ---- owned by Run ----
	instances           []*instance
	sources             []*source
	steps               []*step // under way
	activating          bool
	halted              bool // no command and no poll is started, as a Daemon is drained
	verifyAt, reapplyAt time.Time
	seenAt              time.Time // when the clock was looked at last
	waiting             []*request
	work                context.Context // of steps that may be cut short
	polls               context.Context // of polls, which end first in a daemon that is to be replaced
	cutPolls            context.CancelFunc
	finish              context.Context // of steps that are given a moment to finish
}

// instance is one instance, as the loop sees it.
type instance struct {
	situation
	source *source
	busy   action        // step under way on the file
	hints  atomic.Uint32 // set from outside, taken by the loop
}

// situation is all that is known of an instance. It is a plain value, by which plan decides alone.
type situation struct {
	Instance
	steps  []credential.Step // of activation, after an apply
	record record
	file   file
	wanted wanted
	told   activationState
}

// Hints from outside the loop.
const (
	hintFile   uint32 = 1 << iota // the file may have changed
	hintMissed                    // events of the file may have been lost
	hintSource                    // the source may have a new version
)

var errNoInstances = errors.New("no instance is configured")

// New prepares a Daemon and loads what is remembered. It starts nothing.
func New(cfg Config) (*Daemon, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Instances) == 0 {
		return nil, errNoInstances
	}
	d := &Daemon{
		cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1), requests: make(chan *request), done: make(chan func(time.Time)),
		ready: make(chan struct{}), ended: make(chan struct{}), left: make(chan struct{}),
	}
	before := cfg.Before
	d.cfg.Before = nil // it would keep the one before that alive, and so on
	bySource := map[Source]*source{}
	for _, c := range cfg.Instances {
		in := &instance{situation: situation{Instance: c, steps: cfg.Activator.Steps(c.Name)}}
		w := bySource[c.Source]
		if w == nil {
			w = &source{Source: c.Source, spread: true}
			bySource[c.Source] = w
			d.sources = append(d.sources, w)
		}
		in.source, w.members = w, append(w.members, in)
		d.instances = append(d.instances, in)
		var err error
		if was := before.find(c.Name); was != nil {
			in.adopt(was, before.cfg.Revert == cfg.Revert)
		} else if in.record.Record, err = cfg.Store.Load(c.Name); err != nil {
			d.log.Warn("state unreadable, starting without it", keyInstance, c.Name, keyReason, err) // it is applied again, which mends it
		}
		in.forgetSteps(time.Now())
	}
	if before != nil && reflect.DeepEqual(before.cfg.Reapply, cfg.Reapply) {
		d.reapplyAt = before.reapplyAt // a schedule that counts from the start would never come where reloads are more frequent
	}
	d.publish()
	return d, nil
}

// Touched says that the configuration file of the instance at index i of Config.Instances may have changed. Like the other hints it
// never blocks, and may be given from any goroutine.
func (d *Daemon) Touched(i int) { d.hint(i, hintFile) }

// Missed is Touched where events that would have told more may have been lost, or were not to be had.
func (d *Daemon) Missed(i int) { d.hint(i, hintFile|hintMissed) }

// Announced says that the source of the instance at index i of Config.Instances may have a new version: its next poll comes at once.
func (d *Daemon) Announced(i int) { d.hint(i, hintSource) }

// CheckSoon has Run do a full check of every instance, as Check does, without waiting for it.
func (d *Daemon) CheckSoon() {
	d.checkAll.Store(true)
	d.wakeUp()
}

func (d *Daemon) hint(i int, what uint32) {
	d.instances[i].hints.Or(what)
	d.wakeUp()
}

func (d *Daemon) wakeUp() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Ready is closed when every instance had its first full check, whatever it showed.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Run keeps the instances equal to their sources until ctx ends. Then it lets steps under way finish (a command as long as it runs,
// the others two seconds), saves what is unsaved and returns. A step that does not end is left behind. Run may be called once.
func (d *Daemon) Run(ctx context.Context) {
	var cancelFinish context.CancelFunc
	d.work = ctx
	d.polls, d.cutPolls = context.WithCancel(ctx)
	defer func() { d.cutPolls() }()
	d.finish, cancelFinish = context.WithCancel(context.WithoutCancel(ctx))
	defer cancelFinish()

	now := time.Now()
	d.seenAt = now
	d.verifyAt = nextTick(d.cfg.Verify, now)
	if d.reapplyAt.IsZero() {
		d.reapplyAt = nextTick(d.cfg.Reapply, now)
	}
	d.begin(&request{over: d.ready}, now)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		d.checkClock(now)
		if d.checkAll.Swap(false) {
			d.begin(&request{over: make(chan struct{})}, now)
		}
		again := earlier(earlier(d.advance(now), d.advanceHangs(now)), now.Add(longestRest))
		d.publish()
		again = earlier(again, d.endRequests(now))
		timer.Reset(max(0, again.Sub(now)))
		select {
		case outcome := <-d.done:
			outcome(time.Now())
		case <-d.wake:
		case <-timer.C:
		case r := <-d.requests:
			d.begin(r, time.Now())
		case <-ctx.Done():
		}
	}

	close(d.ended)
	stop := time.AfterFunc(finishTime, cancelFinish)
	defer stop.Stop()
	d.windUp(leaveTime, 0)
	hung := len(d.steps)
	for _, in := range d.instances {
		if in.record.saved != in.record.changes && !in.record.saving {
			d.startSave(in)
		}
	}
	d.windUp(saveTime, hung)
	d.leave()
	d.publish()
}

// advance starts every step that is due and returns when it has to be called again at the latest (zero: only when something happens).
func (d *Daemon) advance(now time.Time) (again time.Time) {
	again = d.tick(now)
	for _, in := range d.instances {
		d.takeHints(in, now)
		again = earlier(earlier(again, d.advanceFile(in, now)), d.advanceSave(in, now))
	}
	if d.halted {
		return again
	}
	for _, w := range d.sources {
		again = earlier(again, d.advancePoll(w, now))
	}
	return earlier(again, d.advanceActivation(now))
}

func (d *Daemon) takeHints(in *instance, now time.Time) {
	hints := in.hints.Swap(0)
	if hints&hintFile != 0 {
		f := &in.file
		f.stale = true
		if f.suspectAt.IsZero() {
			f.suspectAt = now
		}
		if hints&hintMissed != 0 {
			f.missedAt = now
		}
		if !f.recovery.due(now) { // what has changed may be what was in its way
			f.recovery.at = earlier(f.recovery.at, now.Add(firstRetry))
		}
	}
	if hints&hintSource != 0 {
		in.source.pollNow(now)
	}
}

// advanceFile asks what is to be done about the file of an instance, and starts it.
func (d *Daemon) advanceFile(in *instance, now time.Time) (again time.Time) {
	for in.busy == actionNone {
		next := in.plan(now, rules{d.cfg.Revert, d.cfg.MaxReverts, d.activating || d.halted})
		d.logBrake(in, next.drift, now)
		switch next.action {
		case actionRecover:
			d.startRecover(in)
		case actionLook, actionRestore:
			d.startLook(in, next.action)
		case actionApply:
			d.startApply(in)
		case actionRecordSame:
			d.recordSame(in, now)
		case actionRecordIntent:
			in.record.Intent = state.Intent{Kind: state.IntentRevert}
			in.record.changed(now)
		default:
			if next.action == actionFetch {
				in.fetch(now)
			}
			return next.again
		}
	}
	return time.Time{}
}

// fetch has the credential that is applied asked for, to revert drift with it.
func (in *instance) fetch(now time.Time) {
	if in.wanted.reason != notForced {
		return
	}
	in.wanted.reason = forDrift
	if in.source.retry.due(now) {
		in.source.next = now
	}
}

// tick takes the schedules.
func (d *Daemon) tick(now time.Time) (again time.Time) {
	if due(d.verifyAt, now) {
		d.verifyAt = nextTick(d.cfg.Verify, now)
		for _, in := range d.instances {
			in.file.stale, in.file.cannotSplice = true, false
		}
		d.pollSoon(now)
	}
	if due(d.reapplyAt, now) {
		d.reapplyAt = nextTick(d.cfg.Reapply, now)
		for _, in := range d.instances {
			in.wanted.reason = forSchedule
		}
		d.pollSoon(now)
	}
	return earlier(d.verifyAt, d.reapplyAt)
}

func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

func nextTick(schedule cron.Schedule, now time.Time) time.Time {
	if schedule == nil {
		return time.Time{}
	}
	return schedule.Next(now)
}
