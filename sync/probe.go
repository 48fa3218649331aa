package sync

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// A version is not applied before Adobe was asked whether it accepts it. Answers are on record, so that each version costs one conclusive
// answer, whatever is restarted. An answer that says nothing is waited for no longer than Config.Patience. The file is guarded meanwhile.

// probe is the question about the version in hand.
type probe struct {
	retry retry
	begun time.Time          // the version came; zero: before a reload
	since time.Time          // it was asked for the first time
	cut   context.CancelFunc // of the request under way, whichever it is, or nil
}

// question is what is to be asked next for an instance.
type question int

const (
	askNothing     question = iota
	takeAnswer              // nobody: another instance has asked about the version in hand
	askVersion              // Adobe, about that
	askLater                // nobody, as Adobe does not want to be asked yet
	askNoMore               // the version in hand is applied without an answer
	fetchApplied            // the source, for the applied credential
	recheckApplied          // Adobe, about that
)

const (
	// probeSpread is within what time of a new version it is asked about first: many hosts may see it at once.
	probeSpread = 2 * time.Second
	// probeLeast is the least time that an answer is waited for.
	probeLeast = time.Second
	probeBound = 30 * time.Second // above the time limit of a Prober
	// longestThrottle is how long an answer can put off the next question: whoever answers, and the clock, may be wrong.
	longestThrottle = 48 * time.Hour
)

// awaitsProbe reports whether the version in hand must not be applied before Adobe was asked. The credential that is applied is not asked
// about again.
func (d *Daemon) awaitsProbe(in *instance) bool {
	p := in.wanted.pending
	return d.cfg.Patience > 0 && p != nil && p.probe == nil && !in.isApplied(p)
}

// keepProbed asks Adobe when it is time.
func (d *Daemon) keepProbed(in *instance) {
	for d.phase < ended {
		now := time.Now()
		d.planRecheck(in, now)
		switch what, at := d.planProbe(in, now); {
		case d.commands.Err() != nil: // a stop is about to begin
			d.wait(time.Time{}, &in.news, nil)
		case what == askNothing:
			in.recheck.credential = nil // it is read again later
			d.wait(at, &in.news, nil)
		case now.Before(at):
			d.wait(at, &in.news, nil)
		case what == takeAnswer:
			d.takeAnswer(in, in.wanted.pending, in.answerOfOther(), nil)
		case what == askVersion:
			d.askVersion(in)
		case what == askLater:
			in.probe.since = now
			d.onNoAnswer(in, in.wanted.pending, throttledError{in.throttledUntil(now)}, now)
			d.wake(in)
		case what == askNoMore:
			d.goOnUnproven(in, in.probe.retry.reason)
		case what == fetchApplied:
			d.fetchApplied(in, now)
		case what == recheckApplied:
			d.recheckApplied(in)
		}
	}
}

// planProbe decides what is to be asked next, and when. It is a pure function. Nothing is asked before the file was looked at: that look
// tells whether the first apply is held.
func (d *Daemon) planProbe(in *instance, now time.Time) (question, time.Time) {
	f, q, rc := &in.file, &in.probe, &in.recheck
	switch {
	case d.cfg.Prober == nil || d.phase > working || !d.mayRun(in, now):
		return askNothing, time.Time{}
	case !f.recovered || f.checkedAt.IsZero() || f.err != nil:
		return askNothing, time.Time{}
	case d.awaitsProbe(in) && in.answerOfOther() != nil:
		return takeAnswer, now
	case d.awaitsProbe(in) && in.isAskedByOther():
		return askNothing, time.Time{}
	case d.awaitsProbe(in) && !q.since.IsZero():
		if end := q.since.Add(d.cfg.Patience); q.retry.at.Add(probeLeast).After(end) {
			return askNoMore, end
		}
		return askVersion, q.retry.at
	case d.awaitsProbe(in) && in.throttledUntil(now).After(later(now, q.retry.at)):
		return askLater, now
	case d.awaitsProbe(in):
		return askVersion, q.retry.at
	case rc.credential != nil:
		return recheckApplied, now
	case !rc.fetching && !rc.at.IsZero():
		return fetchApplied, rc.at
	}
	return askNothing, time.Time{}
}

// askVersion asks about the version in hand, and takes the answer.
func (d *Daemon) askVersion(in *instance) {
	p, q := in.wanted.pending, &in.probe
	if p.hasKey() {
		d.goOnUnproven(in, "it has a private key: Adobe's client credentials grant is not for JWT credentials")
		return
	}
	if q.since.IsZero() {
		q.since = time.Now()
	}
	answer, err := d.ask(in, p, q.since.Add(max(d.cfg.Patience, probeLeast)))
	if answer != nil {
		d.takeAnswer(in, p, answer, err)
	}
}

// takeAnswer takes what Adobe said about p. err is why it said nothing.
func (d *Daemon) takeAnswer(in *instance, p *pending, answer *state.Probe, err error) {
	if r := &in.record; answer.Result != state.ProbeInconclusive {
		r.Probe, r.unsaved = answer, true
	}
	inHand := in.wanted.pending
	if inHand == nil || !inHand.version.Equal(p.version) {
		return // another took its place meanwhile
	}
	switch answer.Result {
	case state.ProbeAccepted:
		inHand.probe, in.probe = answer, probe{}
		in.log.Info("Adobe accepts the new version", "version", p.version.Number)
		d.unblock(in, p.version)
	case state.ProbeRefused:
		in.wanted.pending, in.probe = nil, probe{}
		d.onRefusal(in, in.refusedByAdobe(p.version), answer.At)
	default:
		d.onNoAnswer(in, p, err, answer.At)
	}
	d.wake(in)
}

// onNoAnswer has the version in hand wait for another question. err is why there was no answer.
func (d *Daemon) onNoAnswer(in *instance, p *pending, err error, now time.Time) {
	q := &in.probe
	q.retry.failed(in.log, now, err, report{"Adobe does not say whether it accepts the new version, asking again", "correct what the reason says"},
		"version", p.version.Number, "until", q.since.Add(d.cfg.Patience).UTC())
	q.retry.at = later(q.retry.at, askedFor(err, now))
}

// throttledError is the answer to a question that is not asked, as Adobe has said when it wants to be asked again.
type throttledError struct{ until time.Time }

func (e throttledError) Error() string {
	return "Adobe does not want to be asked before " + e.until.UTC().Format(time.RFC3339) + "; to ask all the same, run sync"
}

// RetryAt is when it does.
func (e throttledError) RetryAt() time.Time { return e.until }

// goOnUnproven lets the version in hand be applied without an answer, unless Adobe has refused its credential under another version.
func (d *Daemon) goOnUnproven(in *instance, why string) {
	p := in.wanted.pending
	if refused := in.refusalOf(p.digest); refused != nil {
		refused.Version, refused.Fields, refused.At = p.version, p.fields, time.Now()
		d.takeAnswer(in, p, refused, nil)
		d.wake(in.source.members...) // for them it is an answer too
		return
	}
	p.probe = newProbe(p, state.ProbeInconclusive, time.Now())
	in.probe = probe{}
	in.log.Warn("the new version is applied without being proven", "version", p.version.Number, "reason", why)
	d.unblock(in, p.version)
	d.emit(in, event.Event{Kind: event.Unproven, Version: p.version.Number, Text: "applied without an answer of Adobe: " + why})
	d.wake(in)
}

// ask asks Adobe about p. The answer is nil when the question was cut short; err is nil, a Refusal, or says why there is no answer.
func (d *Daemon) ask(in *instance, p *pending, until time.Time) (answer *state.Probe, err error) {
	ctx, cut := context.WithDeadline(d.commands, until)
	defer cut()
	in.probe.cut = cut
	d.do(&step{what: "question to Adobe", of: []*instance{in}, bound: probeBound}, func() { err = d.cfg.Prober.Probe(ctx, p.credential) })
	in.probe.cut = nil
	d.wake(in.source.members...) // who may have waited for this answer
	refusal, refused := errors.AsType[*credential.Refusal](err)
	switch {
	case err == nil:
		answer = newProbe(p, state.ProbeAccepted, time.Now())
	case refused:
		answer = newProbe(p, state.ProbeRefused, time.Now())
		answer.Text = refusal.Reason
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, err
	default:
		answer = newProbe(p, state.ProbeInconclusive, time.Now())
	}
	if d.cfg.Meter != nil {
		d.cfg.Meter.Probed(answer.Result)
	}
	in.throttle(askedFor(err, answer.At))
	return answer, err
}

// isAsking reports whether a check has to wait for an answer of Adobe: for the first one only, unless an operator wants the version applied.
func (d *Daemon) isAsking(in *instance, now time.Time) bool {
	if d.awaitsProbe(in) && in.isAskedByOther() {
		return true
	}
	switch what, _ := d.planProbe(in, now); what {
	case takeAnswer, askLater:
		return true
	case askVersion, askNoMore:
		return in.ordered || !in.probe.retry.isFailing() || in.probe.cut != nil
	case recheckApplied:
		return true
	}
	return false
}

func newProbe(p *pending, result state.ProbeResult, now time.Time) *state.Probe {
	return &state.Probe{Version: p.version, Fields: p.fields, Digest: p.digest, Result: result, At: now}
}

// askedFor is when an error wants another try; zero: it does not say.
func askedFor(err error, now time.Time) time.Time {
	var asked interface{ RetryAt() time.Time }
	if !errors.As(err, &asked) {
		return time.Time{}
	}
	return earlier(asked.RetryAt(), now.Add(longestThrottle))
}

// throttle has it on record when Adobe wants to be asked again; zero: at any time.
func (in *instance) throttle(until time.Time) {
	if r := &in.record; !until.Equal(r.ProbeNotBefore) {
		r.ProbeNotBefore, r.unsaved = until, true
	}
}

// throttledUntil is the time before which Adobe is not asked about the secret of in, unless an operator says so: the latest that any
// instance was told that shares it. Beyond longestThrottle, the clock was set.
func (in *instance) throttledUntil(now time.Time) (until time.Time) {
	for _, member := range in.source.members {
		if told := member.record.ProbeNotBefore; told.Sub(now) <= longestThrottle {
			until = later(until, told)
		}
	}
	return until
}

// cutProbe gives up the request under way.
func (in *instance) cutProbe() {
	if in.probe.cut != nil {
		in.probe.cut()
	}
}

// newQuestion is for a version that has just come.
func (in *instance) newQuestion(now time.Time) {
	in.cutProbe()
	cut := in.probe.cut
	in.probe = probe{begun: now, cut: cut, retry: retry{at: now.Add(rand.N(probeSpread))}}
	if p, r := in.wanted.pending, &in.record; r.Probe.Is(state.ProbeAccepted) && r.Probe.Digest == p.digest {
		p.probe = r.Probe
	}
}

// refusedByAdobe is the refusal of a version that Adobe does not accept, as far as is on record, or of one that goes back from that: a node
// of a cluster is behind, and versions that come in turn are not asked about each time. Nil for every other.
func (in *instance) refusedByAdobe(v credential.Version) *credential.Refusal {
	a := in.record.Probe
	if !a.Is(state.ProbeRefused) || !maps.Equal(a.Fields, in.Fields) {
		return nil
	}
	isBehind := v.GoesBackFrom(a.Version) && !v.Equal(in.record.Version) && !in.AllowRollback
	if !a.Version.Equal(v) && !isBehind {
		return nil
	}
	return &credential.Refusal{Version: a.Version, Code: credential.ReasonIMSRefused, Reason: a.Text}
}

// forgetAnswers forgets what Adobe said of another credential than the applied one (an older release, which knows no answers, has applied
// since), and refusals that cfg asks nobody about any more.
func (in *instance) forgetAnswers(cfg Config) {
	r := &in.record
	if cfg.Patience == 0 {
		r.Probe = nil
	}
	if a := r.AppliedProbe; a != nil && (a.Digest != r.Digest || cfg.Prober == nil && a.Result == state.ProbeRefused) {
		r.AppliedProbe = nil
	}
}

// answerOfOther is what Adobe said about the version in hand to an instance that shares its secret, since it came; nil: nothing yet.
func (in *instance) answerOfOther() *state.Probe {
	p := in.wanted.pending
	for _, other := range in.source.members {
		for _, a := range []*state.Probe{other.record.Probe, other.record.AppliedProbe} {
			if a != nil && a.Result != state.ProbeInconclusive && a.Digest == p.digest && a.Version.Equal(p.version) && a.At.After(in.probe.begun) {
				answer := *a
				answer.Fields = in.Fields
				return &answer
			}
		}
	}
	return nil
}

// refusalOf is a copy of Adobe's refusal of a credential, as far as an instance that shares its secret has it on record; or nil.
func (in *instance) refusalOf(digest string) *state.Probe {
	for _, other := range in.source.members {
		for _, a := range []*state.Probe{other.record.Probe, other.record.AppliedProbe} {
			if a.Is(state.ProbeRefused) && a.Digest == digest {
				refused := *a
				return &refused
			}
		}
	}
	return nil
}

// isAskedByOther reports whether such an instance asks about the version in hand now.
func (in *instance) isAskedByOther() bool {
	return slices.ContainsFunc(in.source.members, func(other *instance) bool {
		return other != in && other.probe.cut != nil && other.wanted.pending != nil && other.wanted.pending.digest == in.wanted.pending.digest
	})
}

// AskAdobeAgain has refusals of Adobe, and the lack of an answer, forgotten: an operator has changed something there. Instances that are
// paused are left out, but for the time before which Adobe does not want to be asked.
func (d *Daemon) AskAdobeAgain() {
	d.lock.take()
	defer d.unlock()
	for _, in := range d.instances {
		d.askAdobeAgain(in, time.Now())
	}
}

func (d *Daemon) askAdobeAgain(in *instance, now time.Time) {
	for _, member := range in.source.members {
		member.throttle(time.Time{})
	}
	d.wake(in.source.members...)
	r := &in.record
	if in.isPaused(now) {
		return
	}
	if r.Probe.Is(state.ProbeRefused) {
		r.Probe, r.unsaved = nil, true
	}
	if r.AppliedProbe != nil && !r.AppliedProbe.Is(state.ProbeAccepted) && r.Digest != "" {
		d.fetchApplied(in, now)
	}
}
