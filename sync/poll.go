package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
)

// source is a Source and the instances that share it.
type source struct {
	Source
	members  []*instance
	cut      context.CancelFunc // of the poll under way, or nil
	again    bool               // the poll under way began before something that asks for another
	spread   bool               // the poll after the next success is at a random moment: many hosts ask at this one
	next     time.Time
	lastPoll time.Time // that was answered
	retry    retry     // failing while the source is unreachable
}

// wanted is what the source told an instance.
type wanted struct {
	newest  credential.Version
	refusal *credential.Refusal
	alarm   alarm
	pending *pending
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
	digest, secretDigest string // keyed; the second one of the secret alone
}

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
	for _, w := range d.sources {
		if !w.retry.isFailing() && w.next.After(now.Add(spreadOfTicks)) {
			w.next = now.Add(rand.N(spreadOfTicks))
		}
	}
	d.tell()
}

// pollNow brings the next poll forward. One under way may have been answered before, so another follows it. A push or a signal may
// come on many machines at once: they spread from the poll after it on.
func (w *source) pollNow(now time.Time) {
	w.spread, w.again = true, w.cut != nil
	if !w.again {
		w.next = now
	}
}

// keepPolling polls a source when it is time.
func (d *Daemon) keepPolling(w *source) {
	for !d.ended {
		switch {
		case d.draining:
			d.wait(time.Time{}, nil)
		case time.Now().Before(w.next):
			d.wait(w.next, nil)
		default:
			d.poll(w)
		}
	}
}

// answer is what a poll brought to one member; neither when the secret was not read.
type answer struct {
	pending *pending
	refusal *credential.Refusal
}

func (d *Daemon) poll(w *source) {
	ctx, cut := context.WithCancel(d.ctx)
	defer cut()
	w.cut = cut
	need := func(v credential.Version) bool {
		d.lock.take()
		defer d.unlock()
		return slices.ContainsFunc(w.members, func(in *instance) bool { return in.wants(v) })
	}
	var reading credential.Reading
	var err error
	answers := make([]answer, len(w.members))
	bound := pollBound + time.Duration(len(d.sources)-1)*othersBound
	d.do(step{what: "poll of the source", of: w.members, bound: bound}, func() {
		reading, err = w.Poll(ctx, need)
		for i, in := range w.members {
			answers[i] = pick(reading, in.Fields, d.cfg.Store.Key())
		}
	})
	w.cut = nil
	if ctx.Err() != nil && err != nil && !errors.As(err, new(*credential.Refusal)) {
		return // cut short, tells nothing
	}
	now := time.Now()
	if d.onPoll(w, reading.Version, answers, err, now); w.again {
		w.pollNow(now)
	}
}

func pick(reading credential.Reading, fields credential.Fields, key []byte) answer {
	if reading.Credential == nil {
		return answer{}
	}
	c, refusal := reading.Credential(fields)
	if refusal != nil {
		return answer{refusal: refusal}
	}
	return answer{pending: &pending{reading.Version, fields, c, c.Digest(key), c.SecretDigest(key)}}
}

// onPoll takes what a source told; answers are in the order of its members.
func (d *Daemon) onPoll(w *source, version credential.Version, answers []answer, err error, now time.Time) {
	var refusal *credential.Refusal
	if err != nil && !errors.As(err, &refusal) {
		level := slog.LevelWarn
		if credential.IsForOperator(err) {
			level = slog.LevelError
		}
		w.retry.failed(d.log, now, err, level, "source unreachable, keeping the applied credential")
		w.next, w.spread = w.retry.at, true // more hosts come back in its first seconds than later
		return
	}
	if w.retry.isFailing() {
		d.log.Info("source reachable again", "attempt", w.retry.attempt)
	}
	w.retry, w.lastPoll = retry{}, now
	w.next = now.Add(jittered(d.cfg.Poll))
	if w.spread {
		w.next, w.spread = now.Add(rand.N(d.cfg.Poll)), false
	}
	for i, in := range w.members {
		switch refused := cmp.Or(refusal, answers[i].refusal); {
		case refusal == nil && in.goesBack(version):
			in.onRefusal(in.rollback(version), now)
		case refused != nil:
			in.wanted.pending = nil // what waited to be applied is not wanted any more
			in.onRefusal(refused, now)
		case in.refuses(version) && answers[i].pending == nil: // its secret was not read again
		default:
			in.onVersion(version, answers[i].pending)
		}
		if refusal == nil && answers[i] == (answer{}) && in.wants(version) {
			w.again = true // it has become so since the poll began
		}
	}
}

// onRefusal keeps what is applied.
func (in *instance) onRefusal(refusal *credential.Refusal, now time.Time) {
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
}

// rollback is the refusal of a version that goes back.
func (in *instance) rollback(v credential.Version) *credential.Refusal {
	from := in.record.Version
	if in.wanted.pending != nil {
		from = in.wanted.pending.version
	}
	return &credential.Refusal{Version: v, Reason: fmt.Sprintf("goes back from version %d (or was created before it): "+
		"the source is behind (a node of a cluster?) or was rolled back; set allow_rollback for the instance if that is meant", from.Number)}
}

// onVersion takes a version that is not refused. p is nil when its secret was not read.
func (in *instance) onVersion(v credential.Version, p *pending) {
	w := &in.wanted
	if w.alarm.open {
		w.alarm.open = false
		in.log.Info("secret accepted again", "version", v.Number)
	}
	w.newest, w.refusal = v, nil
	switch {
	case in.isKnown(v):
		w.pending = nil
	case p != nil && (w.pending == nil || !w.pending.version.Equal(v)):
		w.pending, w.retry = p, retry{}
		if v.Equal(in.record.Version) {
			break // it is applied again
		}
		in.log.Info("new version", "version", v.Number)
		if odd := p.credential.Oddities(); len(odd) > 0 {
			in.log.Warn("the shape of the credential is unusual", "version", v.Number, "field", strings.Join(odd, ", "))
		}
	}
}
