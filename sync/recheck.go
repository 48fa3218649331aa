package sync

import (
	"math/rand/v2"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/jitter"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// A recheck asks whether Adobe still accepts the applied credential. It is read from the source again, where that has the applied version
// still, and touches no file.

// recheck is the question about the applied version.
type recheck struct {
	retry      retry
	at         time.Time // not before; zero: not at all
	fetching   bool      // the next poll of the applied version reads its secret
	credential *pending  // that was read
}

// The bounds of a wait after a recheck without an answer. Nothing waits for it.
const (
	firstRecheckRetry = time.Minute
	lastRecheckRetry  = time.Hour
)

// planRecheck sets the time of the next recheck where there is none yet: a while after the last answer, or after the apply. One that is
// overdue, as it was not asked for or no daemon ran, is spread.
func (d *Daemon) planRecheck(in *instance, now time.Time) {
	r, rc, interval := &in.record, &in.recheck, d.cfg.Recheck
	if interval == 0 || !rc.at.IsZero() || rc.fetching || rc.credential != nil || r.Digest == "" {
		return
	}
	last := r.AppliedAt
	if r.AppliedProbe != nil {
		last = later(last, r.AppliedProbe.At)
	}
	rc.at = last.Add(jitter.Around(interval))
	if wait := rc.at.Round(0).Sub(now.Round(0)); wait < 0 || wait > 2*interval { // or the clock was set
		rc.at = now.Add(rand.N(interval / 10))
	}
	rc.at = later(rc.at, in.throttledUntil(now))
	d.wake(in) // the status shows it
}

// fetchApplied has the next poll read the secret of the applied version. What was adopted may be another than the source's.
func (d *Daemon) fetchApplied(in *instance, now time.Time) {
	in.recheck = recheck{retry: in.recheck.retry, fetching: true}
	d.pollIfDue(in.source, now)
}

// wantsApplied reports whether the secret of v has to be read for a recheck.
func (in *instance) wantsApplied(v credential.Version) bool {
	return in.recheck.fetching && in.isKnown(v) && in.record.Digest != ""
}

// recheckApplied asks about the applied version, and takes the answer. The secret is not kept: another try reads it again.
func (d *Daemon) recheckApplied(in *instance) {
	p, r, rc := in.recheck.credential, &in.record, &in.recheck
	if p.hasKey() { // see askVersion
		in.recheck = recheck{at: time.Now().Add(max(d.cfg.Recheck, 24*time.Hour))}
		d.wake(in) // a check has waited for this
		return
	}
	answer, err := d.ask(in, p, time.Now().Add(probeBound))
	tries := rc.retry
	in.recheck = recheck{}
	switch {
	case answer == nil:
		return
	case !in.isKnown(p.version): // another was applied meanwhile
		return
	case answer.Result == state.ProbeInconclusive:
		tries.failedWithin(firstRecheckRetry, lastRecheckRetry, in.log, answer.At, err,
			report{"Adobe does not say whether it still accepts the applied credential, asking again", "correct what the reason says"})
		in.recheck = recheck{retry: tries, at: later(tries.at, askedFor(err, answer.At))}
		return
	}
	was := r.AppliedProbe
	answer.Digest = r.Digest // the same, but for a digest key that was lost since the apply
	r.AppliedProbe, r.unsaved = answer, true
	switch refusal := in.appliedRefusal(); {
	case refusal != nil && !was.Is(state.ProbeRefused):
		in.log.Error("Adobe does not accept the applied credential any more", "version", p.version.Number, "reason", refusal)
		d.emit(in, event.Event{Kind: event.Blocked, Reason: string(refusal.Code), Text: refusal.Error()})
	case refusal == nil && was.Is(state.ProbeRefused):
		in.log.Info("Adobe accepts the applied credential again", "version", p.version.Number)
		d.emit(in, event.Event{Kind: event.Unblocked})
	}
}

// fails is the reason of rechecks without an answer, once a person is needed.
func (rc *recheck) fails() string {
	if !rc.retry.NeedsPerson() {
		return ""
	}
	return rc.retry.reason
}

// appliedRefusal is Adobe's refusal of the applied credential, or nil.
func (in *instance) appliedRefusal() *credential.Refusal {
	a := in.record.AppliedProbe
	if !a.Is(state.ProbeRefused) {
		return nil
	}
	return &credential.Refusal{Version: a.Version, Code: credential.ReasonIMSRefused, Reason: a.Text}
}
