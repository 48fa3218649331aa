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
	polling  bool
	again    bool // the poll under way began before something that asks for another
	spread   bool // the poll after the next success is at a random moment: many hosts ask at this one
	next     time.Time
	polls    int       // that have ended
	lastPoll time.Time // that was answered
	retry    retry     // failed while the source is unreachable
}

// wanted is what the source told an instance.
type wanted struct {
	newest  credential.Version
	refusal *credential.Refusal
	flaps   flapFilter
	pending *pending
	reason  force
	retry   retry // of applies
}

// pending is a credential that waits to be applied.
type pending struct {
	version              credential.Version
	fields               credential.Fields // that it was picked by
	credential           credential.Credential
	digest, secretDigest string // keyed; the second one of the secret alone
}

// force is a reason to apply what is applied already.
type force string

const (
	notForced   force = ""
	forSchedule force = "schedule"
	forDrift    force = "drift"
)

// spreadOfTicks is within what time each source is polled after a tick of a schedule.
const spreadOfTicks = time.Minute

// pollSoon brings polls forward that are not due soon anyway. The same schedule ticks on many machines at once, so what is brought
// forward is spread, and what is spread already is left as it is.
func (d *Daemon) pollSoon(now time.Time) {
	for _, w := range d.sources {
		if !w.retry.failed() && w.next.After(now.Add(spreadOfTicks)) {
			w.next = now.Add(rand.N(spreadOfTicks))
		}
	}
}

// pollNow brings the next poll forward. One under way may have been answered before, so another follows it. A push or a signal may
// come on many machines at once: they spread from the poll after it on.
func (w *source) pollNow(now time.Time) {
	w.spread, w.again = true, w.polling
	if !w.polling {
		w.next = now
	}
}

// keepPolling polls a source when it is due.
func (d *Daemon) keepPolling(w *source) {
	for d.work.Err() == nil {
		switch {
		case d.halted:
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
	w.polling = true
	ctx, key := d.polls, d.cfg.Store.Key()
	members := make([]situation, len(w.members))
	for i, in := range w.members {
		members[i] = in.situation
	}
	need := func(v credential.Version) bool {
		return slices.ContainsFunc(members, func(s situation) bool { return s.judge(v) == versionWanted })
	}
	var reading credential.Reading
	var err error
	answers := make([]answer, len(members))
	bound := pollBound + time.Duration(len(d.sources)-1)*othersBound
	d.do(step{what: "poll of the source", of: w.members, bound: bound}, func() {
		reading, err = w.Poll(ctx, need)
		for i := range answers {
			answers[i] = pick(reading, members[i].Fields, key)
		}
	})
	w.polling = false
	if ctx.Err() != nil && err != nil && !errors.As(err, new(*credential.Refusal)) {
		return // cut short by the stop, tells nothing
	}
	now := time.Now()
	w.polls++
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
		d.failed(&w.retry, now, err, level, "source unreachable, keeping the applied credential")
		w.next, w.spread = w.retry.at, true // more hosts come back in its first seconds than later
		return
	}
	if w.retry.failed() {
		d.log.Info("source reachable again", keyAttempt, w.retry.attempt)
	}
	w.retry, w.lastPoll = retry{}, now
	w.next = now.Add(jittered(d.cfg.Poll))
	if w.spread {
		w.next, w.spread = now.Add(rand.N(d.cfg.Poll)), false
	}
	for i, in := range w.members {
		verdict := in.judge(version)
		switch refused := cmp.Or(refusal, answers[i].refusal); {
		case refusal == nil && verdict == versionGoesBack:
			d.onRefusal(in, in.goesBack(version), now)
		case refused != nil:
			in.wanted.pending = nil // what waited to be applied is not wanted any more
			d.onRefusal(in, refused, now)
		case verdict == versionRefused && answers[i].pending == nil: // its secret was not read again
		default:
			d.onVersion(in, version, answers[i].pending, now)
		}
		if refusal == nil && answers[i] == (answer{}) && in.judge(version) == versionWanted {
			w.again = true // it has become so since the poll began
		}
	}
}

// onRefusal keeps what is applied; the same refusal is logged once.
func (d *Daemon) onRefusal(in *instance, refusal *credential.Refusal, now time.Time) {
	w := &in.wanted
	if !refusal.Version.IsZero() {
		w.newest = refusal.Version
	}
	if w.refusal != nil && sameRefusal(w.refusal, refusal) {
		return
	}
	w.refusal = refusal
	level := slog.LevelDebug
	if w.flaps.begins(refusal, now) {
		level = slog.LevelError
	}
	d.log.Log(context.Background(), level, "secret refused, keeping the applied credential", keyInstance, in.Name, keyReason, refusal)
}

// goesBack is the refusal of a version that goes back.
func (s *situation) goesBack(v credential.Version) *credential.Refusal {
	return &credential.Refusal{Version: v, Reason: fmt.Sprintf("goes back from version %d (or was created before it): "+
		"the source is behind (a node of a cluster?) or was rolled back; set allow_rollback for the instance if that is meant", s.newest().Number)}
}

// newest is the version that is about to be applied, or is.
func (s *situation) newest() credential.Version {
	if s.wanted.pending != nil {
		return s.wanted.pending.version
	}
	return s.record.Version
}

// onVersion takes a version that is not refused. p is nil when its secret was not read.
func (d *Daemon) onVersion(in *instance, v credential.Version, p *pending, now time.Time) {
	w := &in.wanted
	if w.refusal != nil && w.flaps.ends(w.refusal, now) || w.refusal == nil && w.flaps.isOver(now) {
		d.log.Info("secret accepted again", keyInstance, in.Name, keyVersion, v.Number)
	}
	w.newest, w.refusal = v, nil
	switch {
	case in.record.holds(v, in.Fields) && !in.record.Applying() && w.reason == notForced:
		w.pending = nil
	case p != nil:
		if w.pending == nil || !w.pending.version.Equal(v) {
			w.retry = retry{}
			d.logNew(in, p)
		}
		w.pending = p
	}
}

func (d *Daemon) logNew(in *instance, p *pending) {
	if p.version.Equal(in.record.Version) {
		return
	}
	log := d.log.With(keyInstance, in.Name, keyVersion, p.version.Number)
	log.Info("new version")
	if p.version.Reuses(in.newest()) {
		log.Warn("the content changed and its version did not; give each content a version of its own, or leave the version out")
	}
	if odd := p.credential.Oddities(); len(odd) > 0 {
		log.Warn("the shape of the credential is unusual", keyField, strings.Join(odd, ", "))
	}
}
