package sync

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/jitter"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// source is a Source and the instances that share it.
type source struct {
	Source
	members  []*instance
	cut      context.CancelFunc // of the poll under way, or nil
	again    bool               // the poll under way began before something that asks for another
	spread   bool               // the poll after the next success is at a random moment: many hosts ask at this one
	next     time.Time          // see pollAt
	news     news
	lastPoll time.Time // that was answered
	retry    retry     // failing while the source is unreachable
}

// wanted is what the source told an instance.
type wanted struct {
	newest  credential.Version
	refusal *credential.Refusal
	alarm   alarm
	pending *pending
	read    *pending // by the last poll, while an operator wants to adopt
	force   force
	retry   retry // of applies
}

// alarm is what was logged of refusals.
type alarm struct {
	refusal *credential.Refusal // the last one
	at      time.Time
	open    bool // its end was not logged
}

// alarmInterval is how often the same refusal is logged. It may come and go with every poll, where one node of a cluster is behind.
const alarmInterval = 10 * time.Minute

// pending is a credential that waits to be applied.
type pending struct {
	version              credential.Version
	fields               credential.Fields // that it was picked by
	credential           credential.Credential
	digest, secretDigest string       // keyed; the second one of the secret alone
	probe                *state.Probe // why it may be applied; nil: Adobe was not asked
}

// hasKey reports whether it is a JWT credential.
func (p *pending) hasKey() bool { return !p.credential.PrivateKey.IsZero() }

// force is a reason to apply what is applied already.
type force int

const (
	notForced force = iota
	forSchedule
	forDrift
)

// spreadOfTicks is within what time each source is polled after a tick of a schedule.
const spreadOfTicks = time.Minute

// pollSoon brings polls forward that are not due soon anyway. The same schedule ticks on many machines at once, so what is brought
// forward is spread, and what is spread already is left as it is.
func (d *Daemon) pollSoon(now time.Time) {
	for _, s := range d.sources {
		if !s.retry.isFailing() && s.next.After(now.Add(spreadOfTicks)) {
			d.pollAt(s, now.Add(rand.N(spreadOfTicks)))
		}
	}
}

// pollAt has the next poll come then.
func (d *Daemon) pollAt(s *source, at time.Time) {
	if s.next.Equal(at) { // already, for another of its members
		return
	}
	s.next = at
	s.news.tell()
	d.wake(s.members...)
}

// pollIfDue has the next poll come now, unless it waits for a retry.
func (d *Daemon) pollIfDue(s *source, now time.Time) {
	if s.retry.due(now) {
		d.pollAt(s, now)
	}
}

// pollNow brings the next poll forward. One under way may have been answered before, so another follows it. A push or a signal may
// come on many machines at once: they spread from the poll after it on.
func (d *Daemon) pollNow(s *source, now time.Time) {
	s.spread, s.again = true, s.cut != nil
	if !s.again {
		d.pollAt(s, now)
	}
}

// keepPolling polls a source when it is time.
func (d *Daemon) keepPolling(s *source) {
	for d.phase < ended {
		switch {
		case d.phase > working:
			d.wait(time.Time{}, &s.news, nil)
		case time.Now().Before(s.next):
			d.wait(s.next, &s.news, nil)
		default:
			d.poll(s)
		}
	}
}

func (d *Daemon) poll(s *source) {
	ctx, cut := context.WithCancel(d.ctx)
	defer cut()
	s.cut = cut
	need := func(v credential.Version) bool {
		d.lock.take()
		defer d.unlock()
		return slices.ContainsFunc(s.members, func(in *instance) bool { return in.wants(v) })
	}
	var reading credential.Reading
	var err error
	bound := pollBound + time.Duration(len(d.sources)-1)*othersBound
	d.do(&step{what: "poll of the source", of: s.members, bound: bound}, func() { reading, err = s.Poll(ctx, need) })
	s.cut = nil
	if ctx.Err() != nil && err != nil && !errors.As(err, new(*credential.Refusal)) {
		return // cut short, tells nothing
	}
	now := time.Now()
	if d.onPoll(s, reading, err, now); s.again {
		d.pollNow(s, now)
	}
}

// onPoll takes what a source told. The reading has no credential when no member wanted the version, or it was refused.
func (d *Daemon) onPoll(s *source, reading credential.Reading, err error, now time.Time) {
	var refusal *credential.Refusal
	if err != nil && !errors.As(err, &refusal) {
		s.retry.failed(d.log, now, err, report{what: "source unreachable, keeping the applied credential"})
		s.next, s.spread = s.retry.at, true // more hosts come back in its first seconds than later
		return
	}
	if s.retry.isFailing() {
		d.log.Info("source reachable again", "attempt", s.retry.attempt)
	}
	s.retry, s.lastPoll = retry{}, now
	s.next = now.Add(jitter.Around(d.cfg.Poll))
	if s.spread {
		s.next, s.spread = now.Add(rand.N(d.cfg.Poll)), false
	}
	for _, in := range s.members {
		d.onAnswer(in, reading, refusal, now)
		if refusal == nil && reading.Credential == nil && in.wants(reading.Version) {
			s.again = true // it has become so since the poll began
		}
	}
}

// onAnswer takes what the instance's source told: a refusal, or a reading.
func (d *Daemon) onAnswer(in *instance, reading credential.Reading, refusal *credential.Refusal, now time.Time) {
	var back *credential.Refusal
	if refusal == nil {
		back = in.rollback(reading.Version)
	}
	var p *pending
	if refusal == nil && reading.Credential != nil {
		var c credential.Credential
		c, refusal = reading.Credential(in.Fields)
		p = &pending{version: reading.Version, fields: in.Fields, credential: c, digest: c.Digest(d.cfg.Store.Key()), secretDigest: c.SecretDigest(d.cfg.Store.Key())}
	}
	if in.adopting > 0 && refusal == nil && p != nil {
		in.wanted.read = p
	}
	if back != nil {
		d.onRefusal(in, back, now)
		return
	}
	if refusal == nil && p != nil && in.wantsApplied(p.version) {
		in.recheck = recheck{retry: in.recheck.retry, credential: p}
	}
	if refusal == nil {
		refusal = in.refusedByAdobe(reading.Version)
	}
	switch {
	case refusal != nil:
		in.wanted.pending = nil // what waited to be applied is not wanted any more
		d.onRefusal(in, refusal, now)
	case in.refuses(reading.Version) && p == nil: // its secret was not read again
	default:
		d.onVersion(in, reading.Version, p)
	}
}

// onRefusal keeps what is applied.
func (d *Daemon) onRefusal(in *instance, refusal *credential.Refusal, now time.Time) {
	w := &in.wanted
	if !refusal.Version.IsZero() {
		w.newest = refusal.Version
	}
	w.refusal = refusal
	last := w.alarm.refusal
	same := last != nil && last.Error() == refusal.Error() && last.Version.Equal(refusal.Version)
	if same && (w.alarm.open || now.Sub(w.alarm.at) < alarmInterval) {
		return
	}
	w.alarm = alarm{refusal, now, true}
	in.log.Error("secret refused, keeping the applied credential", "reason", refusal)
	d.emit(in, event.Event{Kind: event.Blocked, Version: refusal.Version.Number, Reason: string(credential.ReasonOf(refusal)), Text: refusal.Error()})
}

// onVersion takes a version that is not refused. p is nil when its secret was not read.
func (d *Daemon) onVersion(in *instance, v credential.Version, p *pending) {
	w := &in.wanted
	defer func() {
		// What Adobe has refused stays so until it accepts something, or what is there is applied already.
		waits := w.refusal != nil && w.refusal.Code == credential.ReasonIMSRefused && !in.isKnown(v) && (w.pending == nil || d.awaitsProbe(in))
		if !waits {
			d.unblock(in, v)
		}
	}()
	w.newest = v
	switch {
	case in.isKnown(v):
		w.pending = nil
		if known := &in.record.Version; known.Begun.IsZero() { // of an older release, or of a source that could not tell
			known.Begun = v.Begun // saved with the next change
		}
	case p != nil && (w.pending == nil || !w.pending.version.Equal(v)):
		w.pending, w.retry = p, retry{}
		if v.Equal(in.record.Version) {
			break // it is applied again
		}
		in.log.Info("new version", "version", v.Number)
		in.newQuestion(time.Now())
		in.learnFirst(d.cfg.Store.Key())
		if odd := p.credential.Oddities(); len(odd) > 0 {
			in.log.Warn("the shape of the credential is unusual", "version", v.Number, "field", strings.Join(odd, ", "),
				"remedy", "it is applied; compare the field with that of Adobe Developer Console")
		}
	}
}

// unblock notes that v is not refused.
func (d *Daemon) unblock(in *instance, v credential.Version) {
	w := &in.wanted
	w.refusal = nil
	if w.alarm.open {
		w.alarm.open = false
		in.log.Info("secret accepted again", "version", v.Number)
		d.emit(in, event.Event{Kind: event.Unblocked, Version: v.Number})
	}
}
