package sync

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/credential"
)

// Daemon keeps instances equal to their sources. Its methods may be called from any goroutine.
//
// Each instance has a goroutine that decides and acts in a straight line (reconcile), one that saves its record, and one that asks Adobe;
// each source has one that polls, and activation has one. Whoever decides holds the lock, and gives it up to act or to wait (do, wait): every decision sees
// everything, and a disk, a process or a network that hangs stops one step and nothing else.
type Daemon struct {
	cfg       Config
	log       *slog.Logger
	instances []*instance // the slice itself never changes
	ready     chan struct{}
	lock      lock

	// ---- guarded by lock ----
	changed             []*instance // since the lock was taken
	all                 news        // that concerns everybody
	some                news        // of any instance, or the end of a goroutine
	owed                news        // of an instance that activation is to do something for
	sources             []*source
	running             int   // goroutines
	activating          *step // or nil
	phase               phase
	verifyAt, reapplyAt time.Time
	seenAt              time.Time       // when the clock was looked at last
	ctx                 context.Context // of all steps but commands; ends some time after that of Run
	commands            context.Context // of steps that run commands, none of which is begun after Run's own has ended
}

// instance is all that is known of an instance.
type instance struct {
	Instance
	log        *slog.Logger
	source     *source
	record     record
	file       file
	wanted     wanted
	probe      probe
	recheck    recheck
	activation activation
	steps      []*step   // under way
	busy       action    // of these the one on the file
	ordered    bool      // an operator has said that what is wanted is to be applied
	adopting   int       // operators who want to have adopted what is on disk
	detected   int       // times that drift was found, since the start
	shown      condition // the newest, and since when
	// fileTrouble and sourceTrouble say that an event has told of it, and none of its end.
	fileTrouble, sourceTrouble bool
	changed                    bool // it is in Daemon.changed
	news                       news
	status                     atomic.Pointer[InstanceStatus] // read without the lock
}

// New prepares a Daemon and loads what is remembered. It starts nothing.
func New(cfg Config) *Daemon {
	d := &Daemon{cfg: cfg, log: cfg.Logger, ready: make(chan struct{}), lock: make(lock, 1)}
	before, known := cfg.Before, map[string]*instance{}
	d.cfg.Before = nil // it would keep the one before that alive, and so on
	if before != nil {
		before.lock.take() // others may still ask it
		defer before.unlock()
		for _, in := range before.instances {
			known[in.Name] = in
		}
	}
	now, bySource := time.Now(), map[Source]*source{}
	for _, c := range cfg.Instances {
		s := bySource[c.Source]
		if s == nil {
			s = &source{Source: c.Source, spread: true}
			bySource[c.Source] = s
			d.sources = append(d.sources, s)
		}
		in := &instance{Instance: c, log: d.log.With("instance", c.Name), source: s}
		s.members = append(s.members, in)
		d.instances = append(d.instances, in)
		var err error
		if was := known[c.Name]; was != nil {
			in.inherit(was, now)
		} else if in.record.Record, err = cfg.Store.Load(c.Name); err != nil {
			in.log.Warn("state unreadable, starting without it", "reason", err) // it is applied again, which mends it
		}
		in.takeFile()
		if known[c.Name] == nil {
			in.restorePause(now)
		}
		if (cfg.Ordered && !in.isPaused(now)) || !cfg.HoldFirst {
			in.release()
		}
		in.forgetAnswers(cfg)
		if before != nil {
			d.askAdobeAgain(in, now)
		}
		unwanted := func(s credential.Step) bool { return !slices.Contains(in.Steps, s) }
		in.record.activated(unwanted, now)
		in.record.forgetProofs(unwanted)
	}
	if before != nil && reflect.DeepEqual(before.cfg.Reapply, cfg.Reapply) {
		d.reapplyAt = before.reapplyAt // a schedule that counts from the start would never come where reloads are more frequent
	}
	d.wakeAll()
	d.tell()
	return d
}

// Touched says that the configuration file of the instance at index i of Config.Instances may have changed; missed, that events which
// would have told more may have been lost. Like the other hints it waits for nothing but a decision.
func (d *Daemon) Touched(i int, missed bool) {
	d.lock.take()
	defer d.unlock()
	in := d.instances[i]
	in.file.touched(missed, time.Now())
	d.wake(in)
}

// Announced says that the source of the instance at index i of Config.Instances may have a new version: its next poll comes at once.
func (d *Daemon) Announced(i int) {
	d.lock.take()
	defer d.unlock()
	d.pollNow(d.instances[i].source, time.Now())
}

// Ready is closed when every instance had its first full check, whatever it showed.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Run keeps the instances equal to their sources until ctx ends. Then it lets steps under way finish (a command as long as it runs,
// the others two seconds), saves what is unsaved and returns. A step that does not end is left behind. Run may be called once.
func (d *Daemon) Run(ctx context.Context) {
	d.lock.take()
	defer d.unlock()
	steps, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	now := time.Now()
	d.ctx, d.commands = steps, ctx
	d.seenAt = now
	d.verifyAt = nextTick(d.cfg.Verify, now)
	if d.reapplyAt.IsZero() {
		d.reapplyAt = nextTick(d.cfg.Reapply, now)
	}
	d.beginCheck(d.instances, now)
	d.spawn(func() {
		if d.await(steps, d.instances) == nil {
			close(d.ready)
		}
	})
	for _, in := range d.instances {
		d.spawn(func() { d.reconcile(in) })
		d.spawn(func() { d.keepSaved(in) })
		if d.cfg.Prober != nil {
			d.spawn(func() { d.keepProbed(in) })
		}
	}
	for _, s := range d.sources {
		d.spawn(func() { d.keepPolling(s) })
	}
	d.spawn(d.keepActivated)
	for ctx.Err() == nil {
		now := time.Now()
		d.checkClock(now)
		d.wait(d.tick(now), &d.all, ctx.Done())
	}
	d.stop(cancel)
}

// reconcile asks what is to be done about the file of an instance, and does it.
func (d *Daemon) reconcile(in *instance) {
	for d.phase < ended {
		now := time.Now()
		d.checkClock(now)
		if d.phase == drained {
			d.wait(time.Time{}, &in.news, nil)
			continue
		}
		next := d.plan(in, now)
		d.logDriftLeft(in, now)
		switch next.action {
		case actionRecover:
			d.recover(in)
		case actionLook:
			d.look(in)
		case actionRestore:
			d.restore(in)
		case actionApply:
			d.apply(in)
		case actionRecordSame:
			d.recordSame(in)
		case actionRecordIntent:
			d.recordIntent(in)
		case actionFetch:
			in.wanted.force = forDrift
			d.pollIfDue(in.source, now)
			d.wake(in)
		default:
			d.wait(next.again, &in.news, nil)
		}
	}
}
