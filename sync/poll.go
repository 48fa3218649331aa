package sync

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

func (d *Daemon) advancePoll(w *watched, now time.Time) (again time.Time) {
	if w.polling || d.halting != haltNothing {
		return time.Time{}
	}
	if now.Before(w.next) {
		return w.next
	}
	d.startPoll(w)
	return time.Time{}
}

// spreadOfTicks is within what time each source is polled after a tick of a schedule.
const spreadOfTicks = time.Minute

// pollSoon brings polls forward that are not due soon anyway. The same schedule ticks on many machines at once, so what
// is brought forward is spread, and what is spread already is left as it is.
func (d *Daemon) pollSoon(now time.Time) {
	for _, w := range d.sources {
		if !w.retry.failed() && w.next.After(now.Add(spreadOfTicks)) {
			w.next = now.Add(rand.N(spreadOfTicks))
		}
	}
}

// pollNow brings the next poll forward. The one under way may have asked before whatever is to be found, so another follows it.
// What brings it forward (a push, a signal) may do so on many machines at once, which spread from the poll after it on.
func (w *watched) pollNow(now time.Time) {
	w.spread = true
	if w.polling {
		w.again = true
		return
	}
	w.next = now
}

func (d *Daemon) startPoll(w *watched) {
	w.polling = true
	source, ctx := w.source, d.polls
	need := w.need()
	fields := make([]credential.Fields, len(w.members))
	for i, in := range w.members {
		fields[i] = in.Fields
	}
	bound := pollBound + time.Duration(len(d.sources)-1)*pollTurn
	d.start(task{what: "poll of the source", of: w.members, bound: bound}, func() func(time.Time) {
		reading, err := source.Poll(ctx, need)
		picks := pickAll(reading, fields)
		return func(now time.Time) {
			w.polling = false
			var refusal *credential.Refusal
			if ctx.Err() != nil && err != nil && !errors.As(err, &refusal) {
				return // cut short by the stop, tells nothing
			}
			w.polls++
			d.polled(w, reading.Version, picks, err, now)
			if w.again {
				w.again = false
				w.pollNow(now)
			}
		}
	})
}

// picked is what a member takes out of a secret that was read; neither when it was not read.
type picked struct {
	credential *credential.Credential
	refusal    *credential.Refusal
}

func pickAll(reading credential.Reading, fields []credential.Fields) []picked {
	picks := make([]picked, len(fields))
	if reading.Credential == nil {
		return picks
	}
	for i, f := range fields {
		c, refusal := reading.Credential(f)
		if refusal != nil {
			picks[i].refusal = refusal
		} else {
			picks[i].credential = &c
		}
	}
	return picks
}

// need returns the question that the source asks in another goroutine, so it works on copies.
func (w *watched) need() func(credential.Version) bool {
	type known struct {
		fields  credential.Fields
		record  state.Record
		pending *pending
		refusal *credential.Refusal
		force   string
		allow   bool
	}
	members := make([]known, len(w.members))
	for i, in := range w.members {
		members[i] = known{in.Fields, in.record, in.pending, in.refusal, in.force, in.AllowRollback}
	}
	return func(v credential.Version) bool {
		for _, k := range members {
			if wantsSecret(v, k.fields, k.record, k.pending, k.refusal, k.force, k.allow) {
				return true
			}
		}
		return false
	}
}

// polled takes what a source said for all instances that share it; picks are in the order of the members.
func (d *Daemon) polled(w *watched, version credential.Version, picks []picked, err error, now time.Time) {
	var refusal *credential.Refusal
	if err != nil && !errors.As(err, &refusal) {
		d.outOfReach(w, err, now)
		return
	}
	if w.err != nil {
		w.err = nil
		d.log.Info("source reachable again", keyAttempt, w.retry.attempt)
	}
	w.retry = retry{}
	w.lastPoll = now
	w.next = now.Add(jittered(d.cfg.Poll))
	if w.spread {
		w.spread = false
		w.next = now.Add(rand.N(d.cfg.Poll))
	}
	for i, in := range w.members {
		switch {
		case refusal == nil && goesBack(version, in.record, in.pending, in.AllowRollback):
			d.refused(in, rollback(version, in.newest()), now)
		case refusal != nil || picks[i].refusal != nil:
			in.pending = nil // what waited to be applied is wanted no more
			d.refused(in, cmp.Or(refusal, picks[i].refusal), now)
		default:
			d.told(in, version, picks[i].credential, now)
		}
	}
}

func (in *instance) newest() credential.Version {
	if in.pending != nil {
		return in.pending.version
	}
	return in.record.Version
}

func (d *Daemon) outOfReach(w *watched, err error, now time.Time) {
	news := w.retry.fail(now, err.Error())
	w.next, w.spread = w.retry.at, true // more hosts come back in its first seconds than later
	var later interface{ RetryAt() time.Time }
	if errors.As(err, &later) {
		// Its wait has a jitter of its own: two in a row would pass the cap. Its time may be of the clock on the wall alone.
		if wait := later.RetryAt().Sub(now); wait <= longestAsked {
			w.next = now.Add(max(0, wait))
		}
	}
	w.err = err
	tell := d.warn
	var person interface{ NeedsOperator() }
	if errors.As(err, &person) {
		tell = d.fail // no retry mends it
	}
	tell(news, "source unreachable, keeping the applied credential", keyAttempt, w.retry.attempt, keyReason, err)
}

// refused keeps what is applied; the same refusal is told once.
func (d *Daemon) refused(in *instance, refusal *credential.Refusal, now time.Time) {
	if !refusal.Version.IsZero() {
		in.wanted = refusal.Version
	}
	if in.refusal != nil && sameRefusal(in.refusal, refusal) {
		return
	}
	in.refusal = refusal
	tell := d.log.Error
	if !in.lifted.comes(refusal, now) {
		tell = d.log.Debug
	}
	tell("secret refused, keeping the applied credential", keyInstance, in.Name, keyReason, refusal)
}

// told takes a version that is not refused; c is nil when the secret was not read.
func (d *Daemon) told(in *instance, v credential.Version, c *credential.Credential, now time.Time) {
	if in.refusal != nil && in.refusal.Version.Equal(v) && c == nil {
		return // still the refused one, whose secret was not read again
	}
	in.wanted = v
	if in.refusal != nil {
		tell := d.log.Debug
		if in.lifted.goes(in.refusal, now) {
			tell = d.log.Info
		}
		in.refusal = nil
		tell("secret accepted again", keyInstance, in.Name, keyVersion, v.Number)
	} else if in.lifted.over(now) {
		d.log.Info("secret accepted again", keyInstance, in.Name, keyVersion, v.Number)
	}
	if holds(in.record, v, in.Fields) && !in.record.Applying() && in.force == "" {
		in.pending = nil
		return
	}
	if c == nil {
		return
	}
	if in.pending == nil || !in.pending.version.Equal(v) {
		in.applyTry = retry{}
		if !v.Equal(in.record.Version) {
			d.sayNew(in, v, *c)
		}
	}
	in.pending = &pending{
		version:    v,
		fields:     in.Fields,
		credential: *c,
		digest:     c.Digest(d.cfg.Store.Key()), secretDigest: c.SecretDigest(d.cfg.Store.Key()),
		force: in.force,
	}
}

func (d *Daemon) sayNew(in *instance, v credential.Version, c credential.Credential) {
	d.log.Info("new version", keyInstance, in.Name, keyVersion, v.Number)
	if v.Reuses(in.newest()) {
		d.log.Warn("the content changed and its version did not; give each content a version of its own, or leave the version out",
			keyInstance, in.Name, keyVersion, v.Number)
	}
	if odd := c.Oddities(); len(odd) > 0 {
		d.log.Warn("the shape of the credential is unusual", keyInstance, in.Name, keyVersion, v.Number, keyField, strings.Join(odd, ", "))
	}
}
