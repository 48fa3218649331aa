package sync

import (
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// action is what is to be done about the file of an instance.
type action int

const (
	actionNone         action = iota
	actionRecover             // settle what an earlier daemon, or an apply that failed, left
	actionLook                // read the file
	actionRestore             // look, and revert by a splice what differs
	actionApply               // run nlserver
	actionRecordSame          // record a new version with the same credential
	actionRecordIntent        // record that the revert to come must be followed by activation
	actionFetch               // ask the source for the credential that is applied, to revert drift with it
)

// decision is the answer: an action for now, or else when to ask again even if nothing happens (zero: not at all).
type decision struct {
	action action
	drift  []string // names of the attributes that differ
	again  time.Time
}

// rules are what the decision depends on beside the situation.
type rules struct {
	mode       RevertMode
	maxReverts int
	noCommands bool // no apply may begin
}

// plan decides what is to be done about the file. It is a pure function.
func (s *situation) plan(now time.Time, r rules) decision {
	f := &s.file
	switch {
	case !f.recovered:
		return decision{action: actionRecover}.at(f.recovery.at, now)
	case f.looks == 0 || f.stale || due(f.lookAt, now):
		if s.maySplice(now, r) && f.restore.due(now) {
			return decision{action: actionRestore}
		}
		return decision{action: actionLook}
	case f.err != nil: // missing or damaged: nothing is written until it is whole again
		return decision{again: f.lookAt}
	}
	drift := s.drift()
	if s.wanted.pending != nil {
		switch {
		case s.isApplied(s.wanted.pending) && s.wanted.reason == notForced && !s.record.Applying():
			return decision{action: actionRecordSame, drift: drift}
		case s.wanted.retry.due(now) && !r.noCommands && !s.record.saving:
			return decision{action: actionApply, drift: drift}
		}
		// It has to wait, and an apply that failed may have damaged what worked: what was applied before is restored meanwhile.
	}
	d := s.planRevert(now, r, drift)
	if s.wanted.pending != nil && !s.wanted.retry.due(now) {
		d.again = earlier(d.again, s.wanted.retry.at)
	}
	return d
}

func (s *situation) planRevert(now time.Time, r rules, drift []string) decision {
	if len(drift) == 0 || r.mode == RevertAlert {
		return decision{drift: drift}
	}
	end, braked := s.record.brake(r.maxReverts, now)
	switch splice := s.maySplice(now, r); {
	case braked:
		return decision{drift: drift, again: end}
	case splice && s.mustRecordIntent(now):
		return decision{action: actionRecordIntent, drift: drift}
	case splice:
		return decision{action: actionRestore}.at(s.file.restore.at, now)
	case s.wanted.pending != nil:
		return decision{drift: drift} // its apply is what reverts the drift
	}
	return decision{action: actionFetch, drift: drift}
}

// at returns d if its time has come, else the wait for it.
func (d decision) at(at, now time.Time) decision {
	if now.Before(at) {
		return decision{drift: d.drift, again: at}
	}
	return d
}

// maySplice reports whether drift, should there be any, is reverted by a splice.
func (s *situation) maySplice(now time.Time, r rules) bool {
	_, braked := s.record.brake(r.maxReverts, now)
	return r.mode == RevertSplice && !braked && !s.file.cannotSplice && !s.record.Applying() && len(s.record.Attributes) > 0
}

// mustRecordIntent reports whether it has to be on record, before a revert, that activation must follow it: a crash in between would
// leave the processes with drift that no start finds any more.
func (s *situation) mustRecordIntent(now time.Time) bool {
	return len(s.steps) > 0 && s.file.mayHaveLoaded(now) && !s.intends(state.IntentRevert)
}

func (s *situation) intends(kind state.IntentKind) bool { return s.record.Intent.Kind == kind }

// drift names the attributes that the last look saw differ.
func (s *situation) drift() []string {
	if s.file.looks == 0 || s.file.err != nil {
		return nil
	}
	return s.record.drift(s.file.seen)
}

// isApplied reports whether p is the credential that is applied already, under another version. It is asked anew each time: an apply
// may have come in between.
func (s *situation) isApplied(p *pending) bool {
	return !s.record.Version.IsZero() && p.digest == s.record.Digest
}

// verdict says what becomes of a version that the source shows.
type verdict int

const (
	versionKnown    verdict = iota // applied, or in hand
	versionWanted                  // its secret has to be read
	versionRefused                 // it would be refused again
	versionGoesBack                // it is older than what is applied, or about to be
)

// judge decides about a version before its secret is read.
func (s *situation) judge(v credential.Version) verdict {
	w, r := &s.wanted, &s.record
	switch {
	case !s.AllowRollback && (v.GoesBackFrom(r.Version) || w.pending != nil && v.GoesBackFrom(w.pending.version)):
		return versionGoesBack
	case w.pending != nil && w.pending.version.Equal(v):
		return versionKnown
	case w.refusal != nil && w.refusal.Version.Equal(v):
		return versionRefused
	case w.reason == notForced && !r.Applying() && r.holds(v, s.Fields):
		return versionKnown
	}
	return versionWanted
}
