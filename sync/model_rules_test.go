package sync_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// rules is the reference: what the world allows, told from what happened to it and never from what a daemon thinks.
type rules struct {
	mode          credsync.RevertMode
	maxReverts    int
	allowRollback bool
	of            map[*modelFile]*fileRules
	allowed, runs map[string]int // of each step of activation: runs that there is a reason for, and that were
	lastRun       map[string]int
	unrecorded    map[string]bool // steps that were run since everything was on record
	unsavedSince  time.Time       // writing the record fails since then; zero = it works
	behind        bool            // records may lack something because of that
}

// fileRules is what is known of one instance.
type fileRules struct {
	applies     []appliedOnce
	current     int           // the one that counts; -1 = none
	durable     int           // the newest one that no crash may make forgotten
	begun       *modelVersion // what the newest command was started for
	open        bool          // a command was started and its outcome did not reach a daemon
	uncertain   bool          // nobody knows what an interrupted command did
	byCommand   credential.Attributes
	drifted     bool // since the last apply
	mayOwe      bool // a daemon saw drift that the processes may have read: that is a reason to activate, whoever puts it back
	couldNotPut bool // and a splice was no way to mend it
	reverts     []time.Time
	owed        int // the effect since when every step has to be run; 0 = none
	owedOnDisk  int // the same, as far as a crash leaves it
	pausedUntil time.Time
	pauseEnd    time.Time // of the last pause that was asked for, whether it was saved or not

	mayBeHeld    bool // the first apply, as far as is on disk
	ordered      bool // an operator wants it
	mayBeOrdered bool // and may have said so while it was paused, or in vain
	mayBeAdopted bool // what is on disk, or was, by an order that a crash cut off
}

type appliedOnce struct {
	content    string // "": what somebody else had set, guarded while the first apply is held, or adopted
	version    *modelVersion
	attributes credential.Attributes
	at         time.Time
}

// reading is an answer of the source.
type reading struct {
	at      time.Time
	version *modelVersion
	refused bool
}

func newRules(files []*modelFile) *rules {
	r := &rules{of: map[*modelFile]*fileRules{}, allowed: map[string]int{}, runs: map[string]int{}, lastRun: map[string]int{},
		unrecorded: map[string]bool{}}
	for _, f := range files {
		r.of[f] = &fileRules{current: -1, durable: -1}
	}
	return r
}

func (k *fileRules) wanted() credential.Attributes {
	if k.current < 0 {
		return nil
	}
	return k.applies[k.current].attributes
}

// goesBack is the contract's sentence: a lower number that was not created later (or the same number, created before). A source
// without versions has no way back: what it shows is what is wanted.
func goesBack(v, from *modelVersion) bool {
	if v.Unordered {
		return false
	}
	return v.Number < from.Number && !v.Created.After(from.Created) || v.Number == from.Number && v.Created.Before(from.Created)
}

// acceptable finds the version whose credential may be applied now: the newest one told that was not refused. What was told
// in this very instant may not have been taken yet. An answer that goes back leaves what waits as it is.
func (r *rules) acceptable(g *generation, k *fileRules, content string) (found *modelVersion) {
	for i, told := range slices.Backward(g.readings) {
		back := !r.allowRollback && (k.current >= 0 && goesBack(told.version, k.applies[k.current].version) ||
			slices.ContainsFunc(g.readings[:i], func(before reading) bool { return goesBack(told.version, before.version) }))
		if told.version.content == content && !told.refused && told.version.refusal == "" {
			if !back {
				return told.version
			}
			if found == nil {
				found = told.version // unless the same credential was told under a version that does not go back
			}
		}
		if told.at.Before(time.Now()) && (told.refused || !back) {
			return found
		}
	}
	return found
}

func (r *rules) applyBegins(w *modelWorld, g *generation, f *modelFile, c credential.Credential) {
	k := r.of[f]
	w.note("nlserver writes %s: %s", f.name, c.ClientID)
	k.mustNotBePaused(w, f)
	if k.isHeld(w) {
		w.breaks("%s is written by nlserver, and its first apply is held", f.name)
	}
	if k.current < 0 || k.applies[k.current].content != c.ClientID {
		r.mustBeProbed(w, g, f, c.ClientID)
	}
	if f.command != nil {
		w.breaks("two commands at work on %s", f.name)
	}
	if recordOnDisk(g, f.name).Applying == nil {
		w.breaks("the command for %s began before the intent was on disk", f.name)
	}
	v := r.acceptable(g, k, c.ClientID)
	switch {
	case v == nil:
		w.breaks("%s was applied to %s, which was refused, superseded or never told", c.ClientID, f.name)
	case k.current >= 0 && goesBack(v, k.applies[k.current].version) && !r.allowRollback:
		w.breaks("version %d was applied to %s over version %d", v.Number, f.name, k.applies[k.current].version.Number)
	case k.current >= 0 && k.applies[k.current].content == c.ClientID && !k.uncertain && !k.mendsByApply(r):
		w.breaks("%s was applied to %s, where it is already", c.ClientID, f.name)
	}
	if v == nil {
		v = &modelVersion{content: c.ClientID} // told as broken above
	}
	k.open, k.begun = true, v
}

func (r *rules) applied(w *modelWorld, g *generation, f *modelFile, content string, written credential.Attributes) {
	k := r.of[f]
	if k.current >= 0 && k.applies[k.current].content == content && !k.uncertain && k.mendsByApply(r) {
		k.revert(w, r, f)
	}
	k.applies = append(k.applies, appliedOnce{content, k.begun, written, time.Now()})
	k.current, k.open, k.uncertain, k.drifted, k.couldNotPut = len(k.applies)-1, false, false, false, false
	r.due(w, f)
	f.isRight(g)
}

// mendsByApply reports drift that an apply is there for.
func (k *fileRules) mendsByApply(r *rules) bool {
	return k.drifted && (r.mode == credsync.RevertApply || k.couldNotPut)
}

// due notes that there is a reason to activate.
func (r *rules) due(w *modelWorld, f *modelFile) {
	r.of[f].owed = w.effects
	r.may(f)
}

// may allows one run more of every step.
func (r *rules) may(f *modelFile) {
	for _, step := range stepsOf(f.name) {
		r.allowed[step]++
	}
}

// Drift that is younger than loadLimit was not loaded; a look may take a moment.
const loadLimit, loadSlack = 2 * time.Second, 200 * time.Millisecond

// age is how long the file may have been wrong: since its first change that the daemon was told of, or, where it may have missed
// some, since it saw it right. It is very long if it never did.
func age(g *generation, f *modelFile, missed bool) time.Duration {
	right := g.right[f.name]
	if right.IsZero() || missed {
		return time.Since(right)
	}
	if f.missed {
		return time.Since(f.changedAt) // for certain
	}
	return time.Since(f.heardAt)
}

// isRight notes that a daemon saw the file as it should be.
func (f *modelFile) isRight(g *generation) {
	g.right[f.name], f.heardAt, f.missed = time.Now(), time.Time{}, f.deaf
}

// looked: a daemon saw the file.
func (r *rules) looked(w *modelWorld, g *generation, f *modelFile) {
	k := r.of[f]
	f.unheard = false
	if len(credential.Drift(k.wanted(), f.attributes)) > 0 {
		if k.isSpliced(r) && (age(g, f, f.missed) > loadLimit-loadSlack || k.pausedSince(g.right[f.name])) && !k.mayOwe {
			k.mayOwe = true
			r.may(f)
		}
		return
	}
	f.isRight(g)
	k.mayOwe, k.uncertain, k.couldNotPut = false, false, false // a command that was cut off has written nothing
}

func (r *rules) restored(w *modelWorld, g *generation, f *modelFile, found credential.Attributes) {
	k := r.of[f]
	k.mustNotBePaused(w, f)
	switch {
	case !k.isSpliced(r):
		w.breaks("%s was put back in mode %s", f.name, r.mode)
	case k.current < 0 || len(credential.Drift(k.wanted(), f.attributes)) > 0:
		w.breaks("%s got attributes that are not those of its last apply: %v", f.name, f.attributes)
	case k.uncertain && slices.EqualFunc(found, k.byCommand, credential.Attribute.Same):
		w.breaks("what an interrupted command had written to %s was undone", f.name)
	}
	f.unheard = false
	k.revert(w, r, f)
	if (age(g, f, f.missed) > loadLimit-loadSlack || w.activating || k.pausedSince(g.right[f.name])) && !k.mayOwe {
		r.may(f) // what is being activated may have read it
	}
	if age(g, f, false) > loadLimit+loadSlack {
		k.owed = w.effects
		if !r.behind {
			k.owedOnDisk = k.owed
			if !recordOnDisk(g, f.name).RevertOwesActivation {
				w.breaks("%s was put back before it was on record that activation must follow", f.name)
			}
		}
	}
	k.mayOwe = false
	f.isRight(g)
}

// isSpliced reports whether drift may be reverted by a splice. For what somebody else had set nlserver is not run.
func (k *fileRules) isSpliced(r *rules) bool {
	ofOthers := k.mayBeHeld || k.current >= 0 && k.applies[k.current].content == ""
	return r.mode == credsync.RevertSplice || r.mode == credsync.RevertApply && ofOthers
}

// pausedSince reports whether there may have been a pause after the file was last seen right: then drift counts as old.
func (k *fileRules) pausedSince(right time.Time) bool {
	return !k.pauseEnd.IsZero() && !right.After(k.pauseEnd)
}

// mustNotBePaused is asked when something is done to the file.
func (k *fileRules) mustNotBePaused(w *modelWorld, f *modelFile) {
	if time.Now().Before(k.pausedUntil) {
		w.breaks("%s was written, and is paused until %v", f.name, k.pausedUntil)
	}
}

// revert counts one for the brake.
func (k *fileRules) revert(w *modelWorld, r *rules, f *modelFile) {
	k.reverts = slices.DeleteFunc(k.reverts, func(t time.Time) bool { return time.Since(t) >= time.Hour })
	if len(k.reverts) >= r.maxReverts {
		w.breaks("%s was reverted more than %d times in an hour", f.name, r.maxReverts)
	}
	k.reverts = append(k.reverts, time.Now())
}

func (r *rules) activated(w *modelWorld, step string) {
	r.runs[step]++
	r.lastRun[step] = w.effects
	r.unrecorded[step] = true
	for f, k := range r.of {
		if step == "restart pipelined@"+f.name && time.Now().Before(k.pausedUntil) {
			w.breaks("%s was run, and %s is paused", step, f.name)
		}
	}
	if r.runs[step] > r.allowed[step] {
		w.breaks("%s was run %d times for %d reasons", step, r.runs[step], r.allowed[step])
	}
}

// crashed: what was not on record is forgotten.
func (r *rules) crashed(w *modelWorld) {
	for step := range r.unrecorded {
		r.allowed[step]++
	}
	clear(r.unrecorded)
	if a := &w.adobe; !a.durable {
		a.refused, a.notBefore = "", time.Time{}
	}
	for _, k := range r.of {
		k.owed = k.owedOnDisk // where nothing could be written, what was owed is forgotten
		k.ordered = false     // and an order; one that is known to be on record has cleared mayBeHeld
		k.reverts = slices.DeleteFunc(k.reverts, func(t time.Time) bool {
			const wait = 100 * time.Millisecond // of a count for its save
			return time.Since(t) <= wait || !r.unsavedSince.IsZero() && !t.Before(r.unsavedSince.Add(-wait))
		})
	}
}

// quiescent is called when nothing goes on that does not need time to pass, and records are written.
func (r *rules) quiescent(w *modelWorld) {
	if !r.unsavedSince.IsZero() || w.activating {
		return
	}
	clear(r.unrecorded)
	r.behind, w.adobe.durable = false, true
	for _, k := range r.of {
		k.durable, k.owedOnDisk = k.current, k.owed
		k.mayBeHeld = k.mayBeHeld && !k.ordered
	}
}

// started compares what a new daemon finds in its state directory with what it must not have forgotten.
func (r *rules) started(w *modelWorld, f *modelFile, record state.Record) {
	k := r.of[f]
	found := -1
	for i, once := range k.applies {
		if slices.EqualFunc(once.attributes, record.Attributes, credential.Attribute.Same) {
			found = i
		}
	}
	if k.mayBeAdopted && !record.Version.IsZero() && record.Digest == "" {
		k.applies, found = append(k.applies, appliedOnce{version: &modelVersion{Version: record.Version}, attributes: record.Attributes}), len(k.applies)
	}
	k.mayBeAdopted = false
	switch {
	case found < 0 && !record.Version.IsZero():
		w.breaks("the record of %s is of no apply: %+v", f.name, record)
	case found < k.durable:
		w.breaks("apply %d of %s was forgotten, %d is remembered", k.durable, f.name, found)
	case (k.open || found < k.current) && record.Applying == nil:
		w.breaks("a command was at work on %s, and nobody remembers", f.name)
	}
	k.current, k.open, k.uncertain = found, false, record.Applying != nil
	for _, v := range w.versions {
		if found < 0 || !v.Equal(record.Version) {
			continue
		}
		if k.applies[found].version = v; v.content != k.applies[found].content && k.applies[found].content != "" {
			w.breaks("version %d of %s is recorded for %s, which is not what it holds", v.Number, f.name, k.applies[found].content)
		}
	}
}

func recordOnDisk(g *generation, name string) (record state.Record) {
	data, err := os.ReadFile(filepath.Join(g.dir, name+".json"))
	if err == nil {
		err = json.Unmarshal(data, &record)
	}
	if err != nil {
		return state.Record{}
	}
	return record
}

// readState returns the files of a state directory, as a crash would leave them.
func readState(dir string) map[string][]byte {
	left := map[string][]byte{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if data, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && filepath.Ext(e.Name()) != ".partial" {
			left[e.Name()] = data
		}
	}
	return left
}
