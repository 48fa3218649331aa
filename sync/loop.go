package sync

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// Daemon keeps instances in step. All fields below the line belong to the goroutine of Run.
type Daemon struct {
	cfg    Config
	log    *slog.Logger
	status atomic.Pointer[Status]
	wake   chan struct{} // 1 slot: look at every instance again
	asked  atomic.Bool   // for a full check
	passes chan *pass
	done   chan func(now time.Time) // outcome of a step, to be taken by the loop
	ready  chan struct{}
	ended  chan struct{} // closed when Run takes nothing more
	left   chan struct{} // closed when Run takes no outcome any more

	// ---- owned by Run ----
	instances           []*instance
	sources             []*watched
	running             []*task
	activating          bool
	halting             halt
	verifyAt, reapplyAt time.Time
	turnAt              time.Time // of the last turn
	waiting             []*pass
	work                context.Context // of steps that may be cut short
	polls               context.Context // of polls, which end before them in a daemon that is to be replaced
	cutPolls            context.CancelFunc
	finish              context.Context // of steps that are given a few seconds to finish
}

// instance is the state of one instance.
type instance struct {
	Instance
	touched   atomic.Bool // set by hints from outside, taken by the loop
	missed    atomic.Bool // likewise
	announced atomic.Bool // likewise

	record      state.Record
	seq, saved  int       // of the record: changes made, changes on disk
	saveAt      time.Time // when the change has to be written
	saving      bool
	saveRetry   retry
	source      *watched
	steps       []credential.Step // of activation
	recovered   bool
	recoverTry  retry
	busy        deed // step under way on the file
	disk        disk
	pending     *pending
	wanted      credential.Version // newest one the source told of
	refusal     *credential.Refusal
	lifted      lifted // the refusal before
	force       string // an apply is wanted although in sync: why
	applyTry    retry
	restoreTry  retry
	activateTry retry
	cannotPut   bool
	unproved    []string  // drift that a revert which failed may have put back all the same
	alerted     bool      // drift was told of, in alert mode
	activations int       // times that activation became due
	dueSince    time.Time // the last of them
	braked      bool      // said so
	looks       int
}

// watched is a source and the instances that share it.
type watched struct {
	source   Source
	members  []*instance
	polling  bool
	again    bool // once more after the poll under way
	spread   bool // the poll after the next success is not a whole interval away: many hosts ask at this moment
	next     time.Time
	polls    int
	answered bool // by then already when this Daemon took another's place
	retry    retry
	err      error // of the last poll, when out of reach
	lastPoll time.Time
}

// New prepares a Daemon and loads what is remembered. It starts nothing.
func New(cfg Config) (*Daemon, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Instances) == 0 {
		return nil, errNoInstances
	}
	d := &Daemon{
		cfg:    cfg,
		log:    cfg.Logger,
		wake:   make(chan struct{}, 1),
		passes: make(chan *pass),
		done:   make(chan func(time.Time)),
		ready:  make(chan struct{}),
		ended:  make(chan struct{}),
		left:   make(chan struct{}),
	}
	before := cfg.Before
	d.cfg.Before = nil // it would keep the one before that alive, and so on
	bySource := map[Source]*watched{}
	for _, c := range cfg.Instances {
		in := &instance{Instance: c, steps: cfg.Activator.Steps(c.Name)}
		was := before.find(c.Name)
		if was != nil {
			in.takeOver(was, before.cfg, cfg)
		} else {
			in.record = d.load(c.Name)
		}
		in.forgetSteps()
		if before != nil && len(in.record.Reverts) > 0 { // the brake lets go
			in.record.Reverts = nil
			in.seq++
		}
		w := bySource[c.Source]
		if w == nil {
			w = &watched{source: c.Source, spread: true}
			bySource[c.Source] = w
			d.sources = append(d.sources, w)
		}
		if was != nil && was.Source == c.Source {
			w.takeOver(was.source)
		}
		in.source, w.members = w, append(w.members, in)
		d.instances = append(d.instances, in)
	}
	if before != nil {
		d.reapplyAt = d.takeOverReapply(before)
	}
	d.publish()
	return d, nil
}

func (d *Daemon) load(name string) state.Record {
	record, err := d.cfg.Store.Load(name)
	if err != nil {
		// What is not known is applied again; that is the remedy, so nobody is needed.
		d.log.Warn("state unreadable, starting without it", keyInstance, name, keyReason, err)
	}
	return record
}

// Touched says that the configuration file of the instance at index i of Config.Instances may have changed. It never
// blocks and may be called from any goroutine.
func (d *Daemon) Touched(i int) {
	d.instances[i].touched.Store(true)
	d.nudge()
}

// Missed is Touched where events that would have told more may have been lost, or were not to be had.
func (d *Daemon) Missed(i int) {
	d.instances[i].missed.Store(true)
	d.Touched(i)
}

// Announced says that the source of the instance at index i of Config.Instances may have a new version: its next poll comes
// at once, and nothing else changes. It never blocks and may be called from any goroutine.
func (d *Daemon) Announced(i int) {
	d.instances[i].announced.Store(true)
	d.nudge()
}

// CheckSoon has Run do a full check of every instance, as Check does, without waiting for it. It never blocks and may be
// called from any goroutine.
func (d *Daemon) CheckSoon() {
	d.asked.Store(true)
	d.nudge()
}

func (d *Daemon) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Ready is closed when every instance had its first full check, whatever it showed.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Run keeps the instances in step until ctx ends, then lets steps under way come to their end (a command as long as it
// runs, the others two seconds), saves what is unsaved and returns. A step that does not end is left behind. Run may be called once.
func (d *Daemon) Run(ctx context.Context) {
	var cancelFinish context.CancelFunc
	d.work = ctx
	d.polls, d.cutPolls = context.WithCancel(ctx)
	defer func() { d.cutPolls() }()
	d.finish, cancelFinish = context.WithCancel(context.WithoutCancel(ctx))
	defer cancelFinish()

	now := time.Now()
	d.turnAt = now
	d.verifyAt = nextTick(d.cfg.Verify, now)
	if d.reapplyAt.IsZero() {
		d.reapplyAt = nextTick(d.cfg.Reapply, now)
	}
	first := &pass{over: d.ready}
	d.beginPass(first, now)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		d.mindClock(now)
		if d.asked.Swap(false) {
			d.beginPass(&pass{over: make(chan struct{})}, now)
		}
		again := earlier(earlier(d.advance(now), d.advanceHangs(now)), now.Add(longestRest))
		d.publish()
		again = earlier(again, d.endPasses(now))
		timer.Reset(max(0, again.Sub(now)))
		select {
		case outcome := <-d.done:
			outcome(time.Now())
		case <-d.wake:
		case <-timer.C:
		case p := <-d.passes:
			d.beginPass(p, time.Now())
		case <-ctx.Done():
		}
	}

	close(d.ended)
	stop := time.AfterFunc(finishTime, cancelFinish)
	defer stop.Stop()
	d.windUp(leaveTime, 0)
	hung := len(d.running)
	for _, in := range d.instances {
		if in.saved != in.seq && !in.saving {
			d.startSave(in)
		}
	}
	d.windUp(saveTime, hung)
	d.leave()
	d.publish()
}

// advance starts every step that is due and returns when it has to be called again at the latest (zero: only when
// something happens).
func (d *Daemon) advance(now time.Time) (again time.Time) {
	again = d.tick(now)
	if d.halting == haltAll {
		for _, in := range d.instances {
			again = earlier(again, d.advanceSave(in, now))
		}
		return again
	}
	for _, in := range d.instances {
		if in.touched.Swap(false) {
			in.disk.stale = true
			if in.disk.suspectAt.IsZero() {
				in.disk.suspectAt = now
			}
			if in.missed.Swap(false) {
				in.disk.missedAt = now
			}
			if in.recoverTry.failed() && !in.recoverTry.due(now) { // what has changed may be what was in its way
				in.recoverTry.at = earlier(in.recoverTry.at, now.Add(firstRetry))
			}
		}
		if in.announced.Swap(false) {
			in.source.pollNow(now)
		}
		again = earlier(again, d.advanceInstance(in, now))
		again = earlier(again, d.advanceSave(in, now))
	}
	for _, w := range d.sources {
		again = earlier(again, d.advancePoll(w, now))
	}
	return earlier(again, d.advanceActivation(now))
}

// tick takes the schedules.
func (d *Daemon) tick(now time.Time) (again time.Time) {
	if due(d.verifyAt, now) {
		d.verifyAt = nextTick(d.cfg.Verify, now)
		for _, in := range d.instances {
			in.disk.stale, in.cannotPut = true, false
		}
		d.pollSoon(now)
	}
	if due(d.reapplyAt, now) {
		d.reapplyAt = nextTick(d.cfg.Reapply, now)
		for _, in := range d.instances {
			in.force = forceReapply
			in.source.again = in.source.again || in.source.polling
		}
		d.pollSoon(now)
	}
	return earlier(d.verifyAt, d.reapplyAt)
}

func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// advanceInstance asks what is to be done about one instance, and starts it.
func (d *Daemon) advanceInstance(in *instance, now time.Time) (again time.Time) {
	if in.busy != doNothing {
		return time.Time{}
	}
	v := d.view(in, now)
	decision := plan(v)
	d.sayBrake(in, decision.drift, now)
	switch decision.deed {
	case doRecover:
		d.startRecover(in)
	case doLook:
		d.startLook(in)
	case doApply:
		d.startApply(in)
	case doRestore:
		d.startRestore(in, v)
	case doRecord:
		d.recordSame(in, now)
		return d.advanceInstance(in, now)
	case doOwe:
		r := in.record
		r.Intent = state.Intent{Kind: state.IntentRevert}
		in.changed(r, now)
		return d.advanceInstance(in, now)
	case doFetch:
		if in.force == "" {
			in.force = forceDrift
			// The poll under way does not know that the credential is needed.
			in.source.again = in.source.again || in.source.polling
			if in.source.retry.due(now) {
				in.source.next = now
			}
		}
	}
	return decision.again
}

func (d *Daemon) view(in *instance, now time.Time) view {
	return view{
		now: now, record: in.record,
		recovered: in.recovered, disk: in.disk, pending: in.pending,
		mode: d.cfg.Revert, maxReverts: d.cfg.MaxReverts, cannotPut: in.cannotPut,
		activating: d.activating || d.halting != haltNothing, saving: in.saving, activates: len(in.steps) > 0, recordWait: in.recordWait(),
		recoverRetry: in.recoverTry.at, applyRetry: in.applyTry.at, restoreRetry: in.restoreTry.at,
	}
}

// advanceSave writes a changed record. Changes that only count wait a little, so that a burst of reverts is not
// slowed down by one write each.
func (d *Daemon) advanceSave(in *instance, now time.Time) (again time.Time) {
	if in.saving || in.saved == in.seq {
		return time.Time{}
	}
	at := in.saveAt
	if in.saveRetry.at.After(at) {
		at = in.saveRetry.at
	}
	if now.Before(at) {
		return at
	}
	d.startSave(in)
	return time.Time{}
}

// changed notes a change of the record, to be on disk by at.
func (in *instance) changed(r state.Record, at time.Time) {
	if in.saved == in.seq || at.Before(in.saveAt) {
		in.saveAt = at
	}
	in.record = r
	in.seq++
}

// recordPatience is how long a write of the record is waited for: guarding the file must not hang with another disk.
const recordPatience = 2 * time.Second

func (in *instance) recordWait() time.Time {
	if in.onRecord() {
		return time.Time{}
	}
	return in.saveAt.Add(recordPatience)
}

// countDelay is how long a change that only counts reverts may wait for its write.
const countDelay = 100 * time.Millisecond

// Reasons to apply what is in sync.
const (
	forceReapply = "schedule"
	forceDrift   = "drift"
)

func nextTick(schedule cron.Schedule, now time.Time) time.Time {
	if schedule == nil {
		return time.Time{}
	}
	return schedule.Next(now)
}
