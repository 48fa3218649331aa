package sync_test

import (
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// checkClaims compares what the daemon says now with what is.
func (m *model) checkClaims() {
	w := m.w
	for i, in := range w.gen.daemon.Status() {
		f := w.files[i]
		k := w.rules.of[f]
		if in.State != credsync.StateInSync || f.deaf || f.looking {
			continue
		}
		if f.outOfOrder() != nil {
			if since := later(f.troubleAt, w.gen.born); f.trouble != nil && !f.unheard && time.Since(since) > time.Second {
				w.breaks("%s is in sync, and was %v for a second", f.name, f.trouble)
			}
			continue
		}
		switch {
		case k.current < 0:
			w.breaks("%s is in sync, and nothing was ever applied", f.name)
		case !f.unheard && len(credential.Drift(k.wanted(), f.attributes)) > 0:
			w.breaks("%s is in sync, and there is drift: %v, not %v", f.name, f.attributes, k.wanted())
		case !m.told(f):
			w.breaks("%s is in sync, and the processes were not told", f.name)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// told reports whether every step was run since there was a reason to.
func (m *model) told(f *modelFile) bool {
	for _, step := range stepsOf(f.name) {
		if m.w.rules.lastRun[step] < m.w.rules.of[f].owed {
			return false
		}
	}
	return true
}

// mustComeToRest puts the world in order, leaves it alone and demands that everything is as it should be, and stays quiet.
func (m *model) mustComeToRest() {
	m.heal()
	w := m.w
	patience := 75 * time.Minute // the brake lets go within the hour, then the schedule finds what is left
	if m.held != nil {
		patience += 100 * time.Minute
	}
	time.Sleep(patience)
	m.rest()
	if !m.alive {
		m.t.Fatal("died in a world in order")
	}
	m.checkRest()
	if len(w.broken) > 0 {
		return
	}
	before, states := m.traces(), readState(w.gen.dir)
	time.Sleep(15 * time.Minute)
	m.rest()
	if after := m.traces(); after != before {
		w.breaks("at rest, and not quiet: %s, then %s", before, after)
	}
	for name, data := range readState(w.gen.dir) {
		if string(data) != string(states[name]) {
			w.breaks("at rest, and %s was written", name)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for step := range w.rules.runs { // reasons that were served together are no allowance for later
		w.rules.allowed[step] = w.rules.runs[step]
	}
	for _, f := range w.files {
		if w.rules.of[f].mayBeHeld { // what it owes is run when its first apply is not held any more
			w.rules.may(f)
		}
	}
}

// traces is everything that tells that something was done.
func (m *model) traces() string {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	var writes []int
	for _, f := range m.w.files {
		writes = append(writes, f.writes, len(m.w.rules.of[f].reverts))
	}
	return fmt.Sprint(writes, m.w.rules.runs, m.w.reads, m.w.adobe.asked, len(m.log.String()))
}

func (m *model) checkRest() {
	w := m.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, in := range w.gen.daemon.Status() {
		f, v := w.files[i], w.shown
		k := w.rules.of[f]
		refused := v.deleted || v.refusal != "" ||
			k.current >= 0 && !w.rules.allowRollback && goesBack(v, w.newest(k))
		// A newer version of the same credential may have been told while the file was broken, so that nothing could be recorded:
		// the version that was is then as good.
		if refused && !v.deleted && v.refusal == "" && v.content == k.applies[k.current].content &&
			!goesBack(v, k.applies[k.current].version) && in.State == credsync.StateInSync {
			refused = false
		}
		isAdopted := k.current >= 0 && k.applies[k.current].content == "" && k.applies[k.current].version.Equal(v.Version)
		if isAdopted && !v.deleted && in.State == credsync.StateInSync {
			refused = false // it stands for that version, which is not read again
		}
		drift := !k.uncertain && len(credential.Drift(k.wanted(), f.attributes)) > 0
		var want credsync.State
		switch {
		case drift && w.rules.mode == credsync.RevertAlert:
			want = credsync.StateDrift
		case drift && refused && w.rules.mode == credsync.RevertApply: // nlserver has nothing to apply
			want = credsync.StateDrift
		case refused:
			want = credsync.StateBlocked
		default:
			want = credsync.StateInSync
		}
		w.note("at rest: %+v", in)
		isHeld := w.isStillHeld(f)
		if isHeld && want == credsync.StateInSync {
			want = credsync.StateHeld
			if in.Reason == credential.ReasonSecretRollback { // from the version that waits
				want = credsync.StateBlocked
			}
		}
		if in.Reason == credential.ReasonIMSRefused && k.current >= 0 && w.adobe.applied[k.applies[k.current].content] {
			want = credsync.StateBlocked // by an answer about what is applied
		}
		if in.State != want {
			w.breaks("%s is %s (%s), want %s", f.name, in.State, in.LastError, want)
		}
		if drift && want != credsync.StateDrift {
			w.breaks("%s: %v differ on disk and were not put back", f.name, credential.Drift(k.wanted(), f.attributes))
		}
		if refused || isHeld || want == credsync.StateBlocked {
			continue
		}
		if k.current < 0 || !isAdopted && k.applies[k.current].content != v.content {
			w.breaks("%s was not applied to %s", v.content, f.name)
		}
		if in.AppliedVersion != v.Number || in.WantedVersion != v.Number {
			w.breaks("%s has version %d and wants %d, the source shows %d", f.name, in.AppliedVersion, in.WantedVersion, v.Number)
		}
		if !m.told(f) {
			w.breaks("the processes of %s were not told", f.name)
		}
	}
}

// newest is the version that counts as applied: the last one told that holds the credential applied last.
func (w *modelWorld) newest(k *fileRules) *modelVersion {
	applied := k.applies[k.current]
	newest := applied.version
	for _, told := range w.gen.readings {
		if told.at.Before(applied.at) {
			continue
		}
		if told.version.content == applied.content && !told.refused && told.version.refusal == "" && !goesBack(told.version, newest) {
			newest = told.version
		}
	}
	return newest
}
