package sync

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/credential"
)

// Daemon keeps instances equal to their sources. Its methods may be called from any goroutine.
//
// Each instance has a goroutine that decides and acts in a straight line (reconcile) and one that saves its record; each source has one
// that polls, and activation has one. What they know they share: whoever decides holds the lock, and gives it up while it acts or
// waits (do, wait). So every decision sees everything, and no two are made at once.
type Daemon struct {
	cfg    Config
	log    *slog.Logger
	status atomic.Pointer[Status]
	ready  chan struct{}
	lock   lock

	// ---- guarded by lock ----
	news                chan struct{} // closed, and replaced, when something has ended
	changed             bool          // the status may have
	instances           []*instance
	sources             []*source
	steps               []*step // under way
	running             int     // goroutines
	activating          bool
	halted              bool // no command and no poll is begun, as the Daemon is drained
	ended               bool // Run decides nothing more
	left                bool // steps that are still under way are left behind
	verifyAt, reapplyAt time.Time
	seenAt              time.Time       // when the clock was looked at last
	work                context.Context // of steps that may be cut short
	polls               context.Context // of polls, which end first in a Daemon that is to be replaced
	cutPolls            context.CancelFunc
	finish              context.Context // of steps that are given a moment to finish
}

// instance is one instance of a Daemon.
type instance struct {
	situation
	source *source
	busy   action        // step under way on the file
	wake   chan struct{} // 1 slot: ask again what is to be done
}

// situation is all that is known of an instance. It is a plain value: plan decides by it alone.
type situation struct {
	Instance
	steps  []credential.Step // of activation, after an apply
	record record
	file   file
	wanted wanted
	told   activationState
}

var errNoInstances = errors.New("no instance is configured")

// New prepares a Daemon and loads what is remembered. It starts nothing.
func New(cfg Config) (*Daemon, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Instances) == 0 {
		return nil, errNoInstances
	}
	d := &Daemon{cfg: cfg, log: cfg.Logger, cutPolls: func() {}, ready: make(chan struct{}), lock: make(lock, 1), news: make(chan struct{})}
	before := cfg.Before
	d.cfg.Before = nil // it would keep the one before that alive, and so on
	if before != nil {
		before.lock.take() // whoever asks it now is told that it has ended
		defer before.unlock()
	}
	bySource := map[Source]*source{}
	for _, c := range cfg.Instances {
		in := &instance{wake: make(chan struct{}, 1), situation: situation{Instance: c, steps: cfg.Activator.Steps(c.Name)}}
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
// waits for nothing but a decision.
func (d *Daemon) Touched(i int) { d.touched(i, false) }

// Missed is Touched where events that would have told more may have been lost, or were not to be had.
func (d *Daemon) Missed(i int) { d.touched(i, true) }

func (d *Daemon) touched(i int, missed bool) {
	d.lock.take()
	defer d.unlock()
	in := d.instances[i]
	in.file.touched(missed, time.Now())
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// Announced says that the source of the instance at index i of Config.Instances may have a new version: its next poll comes at once.
func (d *Daemon) Announced(i int) {
	d.lock.take()
	defer d.unlock()
	d.instances[i].source.pollNow(time.Now())
	d.tell()
}

// Ready is closed when every instance had its first full check, whatever it showed.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Run keeps the instances equal to their sources until ctx ends. Then it lets steps under way finish (a command as long as it runs,
// the others two seconds), saves what is unsaved and returns. A step that does not end is left behind. Run may be called once.
func (d *Daemon) Run(ctx context.Context) {
	d.lock.take()
	defer d.unlock()
	d.work = ctx
	d.polls, d.cutPolls = context.WithCancel(ctx)
	defer func() { d.cutPolls() }()
	finish, cancelFinish := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelFinish()
	d.finish = finish

	now := time.Now()
	d.seenAt = now
	d.verifyAt = nextTick(d.cfg.Verify, now)
	if d.reapplyAt.IsZero() {
		d.reapplyAt = nextTick(d.cfg.Reapply, now)
	}
	first := d.beginCheck(nil, now)
	d.spawn(func() {
		if d.await(ctx, first) == nil {
			close(d.ready)
		}
	})
	for _, in := range d.instances {
		d.spawn(func() { d.reconcile(in) })
		d.spawn(func() { d.keepSaved(in) })
	}
	for _, w := range d.sources {
		d.spawn(func() { d.keepPolling(w) })
	}
	d.spawn(d.keepActivated)
	for ctx.Err() == nil {
		now := time.Now()
		d.checkClock(now)
		d.wait(earlier(d.tick(now), d.checkSteps(now)), ctx.Done())
	}
	d.stop(cancelFinish)
}

// reconcile asks what is to be done about the file of an instance, and does it.
func (d *Daemon) reconcile(in *instance) {
	for d.work.Err() == nil {
		now := time.Now()
		d.checkClock(now)
		next := in.plan(now, d.rules())
		d.logBrake(in, next.drift, now)
		switch next.action {
		case actionRecover:
			d.recover(in)
		case actionLook, actionRestore:
			d.look(in, next.action)
		case actionApply:
			d.apply(in)
		case actionRecordSame:
			d.recordSame(in, now)
		case actionRecordIntent:
			d.recordIntent(in)
		case actionFetch:
			d.fetch(in, now)
			d.wait(next.again, in.wake)
		default:
			d.wait(next.again, in.wake)
		}
	}
}

func (d *Daemon) rules() rules {
	return rules{d.cfg.Revert, d.cfg.MaxReverts, d.activating || d.halted}
}

// fetch has the credential that is applied asked for, to revert drift with it.
func (d *Daemon) fetch(in *instance, now time.Time) {
	if in.wanted.reason != notForced {
		return
	}
	in.wanted.reason = forDrift
	if in.source.retry.due(now) {
		in.source.next = now
	}
	d.tell()
}
