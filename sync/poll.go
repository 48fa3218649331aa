package sync

import (
	"errors"
	"math/rand/v2"
	"time"

	"campaign-credsync/internal/credential"
)

func (d *Daemon) startPoll(w *watched) {
	w.polling = true
	source, ctx := w.source, d.work
	need := w.need()
	d.start(func() func(time.Time) {
		reading, err := source.Poll(ctx, need)
		return func(now time.Time) {
			w.polling = false
			var refusal *credential.Refusal
			if ctx.Err() != nil && err != nil && !errors.As(err, &refusal) {
				return // cut short by the stop, tells nothing
			}
			w.polls++
			d.polled(w, reading, err, now)
			if w.again {
				w.again = false
				w.next = now
			}
		}
	})
}

// need returns the question that the source asks in another goroutine, so it works on copies.
func (w *watched) need() func(credential.Version) bool {
	type known struct {
		record  Record
		pending *pending
		refusal *credential.Refusal
		force   string
		allow   bool
	}
	members := make([]known, len(w.members))
	for i, in := range w.members {
		members[i] = known{in.record, in.pending, in.refusal, in.force, in.AllowRollback}
	}
	return func(v credential.Version) bool {
		for _, k := range members {
			if wantsSecret(v, k.record, k.pending, k.refusal, k.force, k.allow) {
				return true
			}
		}
		return false
	}
}

// polled takes what a source said for all instances that share it.
func (d *Daemon) polled(w *watched, reading credential.Reading, err error, now time.Time) {
	var refusal *credential.Refusal
	if err != nil && !errors.As(err, &refusal) {
		d.outOfReach(w, err, now)
		return
	}
	if w.err != nil {
		w.err = nil
		d.log.Info("source is back", keyAttempt, w.retry.attempt)
	}
	w.retry = retry{}
	w.lastPoll = now
	w.next = now.Add(jittered(d.cfg.Poll))
	if w.polls == 1 {
		// Daemons that were started together spread from the second poll on.
		w.next = now.Add(rand.N(d.cfg.Poll))
	}
	for _, in := range w.members {
		switch {
		case refusal != nil:
			in.pending = nil // what waited to be applied is wanted no more
			d.refused(in, refusal)
		case goesBack(reading.Version, in.record, in.pending, in.AllowRollback):
			d.refused(in, rollback(reading.Version, in.newest()))
		default:
			d.told(in, reading, now)
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
	w.next = w.retry.at
	var login interface{ RetryAt() time.Time }
	if errors.As(err, &login) {
		// Its wait has a jitter of its own: two in a row would pass the cap. Its time may be of the clock on the wall alone.
		if wait := login.RetryAt().Sub(now); wait < lastRetry {
			w.next = now.Add(max(0, wait))
		}
	}
	w.err = err
	tell := d.warn
	var person interface{ ForPerson() }
	if errors.As(err, &person) {
		tell = d.fail // no retry mends it
	}
	tell(news, "source out of reach, keeping what is applied", keyAttempt, w.retry.attempt, keyReason, err)
}

// refused keeps what is applied; the same refusal is told once.
func (d *Daemon) refused(in *instance, refusal *credential.Refusal) {
	if !refusal.Version.IsZero() {
		in.wanted = refusal.Version
	}
	if in.refusal != nil && sameRefusal(in.refusal, refusal) {
		return
	}
	in.refusal = refusal
	tell := d.log.Error
	if !in.lifted.comes(refusal, time.Now()) {
		tell = d.log.Debug
	}
	tell("secret refused, keeping what is applied", keyInstance, in.Name, keyReason, refusal)
}

// told takes a version that is not refused.
func (d *Daemon) told(in *instance, reading credential.Reading, now time.Time) {
	v := reading.Version
	if in.refusal != nil && in.refusal.Version.Equal(v) && reading.Credential == nil {
		return // still the refused one, whose secret was not read again
	}
	in.wanted = v
	if in.refusal != nil {
		tell := d.log.Debug
		if in.lifted.goes(in.refusal, time.Now()) {
			tell = d.log.Info
		}
		in.refusal = nil
		tell("secret is refused no more", keyInstance, in.Name, keyVersion, v.Number)
	} else if in.lifted.over(time.Now()) {
		d.log.Info("secret is refused no more", keyInstance, in.Name, keyVersion, v.Number)
	}
	if v.Equal(in.record.Version) && in.record.Applying == nil && in.force == "" {
		in.pending = nil
		return
	}
	if reading.Credential == nil {
		return
	}
	if in.pending == nil || !in.pending.version.Equal(v) {
		in.applyTry = retry{}
		if !v.Equal(in.record.Version) {
			d.log.Info("new version", keyInstance, in.Name, keyVersion, v.Number)
		}
	}
	in.pending = &pending{
		version:    v,
		credential: *reading.Credential,
		digest:     reading.Credential.Digest(d.cfg.Store.Key()), secretDigest: reading.Credential.SecretDigest(d.cfg.Store.Key()),
		force: in.force,
	}
}
