package sync_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
)

// What operators and Adobe do in the model: orders, adopt, a first apply that is held, and the answers about a new version.

// modelAdobe is what Adobe answers, and what it has answered.
type modelAdobe struct {
	refuses bool          // whatever it is asked about
	silent  bool          // it says nothing about the credential
	later   time.Duration // and wants to be asked again only then
	asked   int

	everRefused bool
	refused     string          // the last content that it said something about, if it refused that
	durable     bool            // no crash makes that forgotten, nor notBefore
	notBefore   time.Time       // asked for by its last answer
	accepted    map[string]bool // contents that it has ever accepted
	applied     map[string]bool // contents that were applied when it refused them last
}

const modelPatience = time.Minute

type modelProber struct {
	w *modelWorld
	g *generation
}

func (p modelProber) Probe(ctx context.Context, c credential.Credential) error {
	w, a := p.w, &p.w.adobe
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.effect(p.g, "before a question to Adobe") {
		return errDead
	}
	a.asked++
	w.rules.asked(w)
	w.mu.Unlock()
	select {
	case <-time.After(100 * time.Millisecond):
	case <-ctx.Done():
	}
	w.mu.Lock()
	if ctx.Err() != nil || p.g.dead {
		return cmp.Or(ctx.Err(), errDead)
	}
	err := a.answer(w, c.ClientID)
	w.note("Adobe about %s: %v", c.ClientID, err)
	if w.effect(p.g, "after an answer of Adobe") {
		return errDead
	}
	return err
}

func (a *modelAdobe) answer(w *modelWorld, content string) error {
	a.durable = false
	isApplied := slices.ContainsFunc(w.files, func(f *modelFile) bool {
		k := w.rules.of[f]
		return k.current >= 0 && k.applies[k.current].content == content
	})
	a.notBefore = time.Time{}
	switch {
	case a.silent && a.later > 0:
		a.notBefore = time.Now().Add(a.later)
		return laterError{a.notBefore}
	case a.silent:
		return errors.New("answers 503")
	case a.refuses:
		a.everRefused = true
		if a.applied[content] = isApplied; !isApplied {
			a.refused = content
		}
		return &credential.Refusal{Code: credential.ReasonIMSRefused, Reason: "Adobe refuses the credential"}
	}
	a.accepted[content], a.refused, a.applied[content] = true, "", false
	return nil
}

// asked is called before each question.
func (r *rules) asked(w *modelWorld) {
	held, paused := true, true
	for _, f := range w.files {
		k := r.of[f]
		held = held && k.isHeld(w)
		paused = paused && time.Now().Before(k.pausedUntil)
	}
	switch a := &w.adobe; {
	case held:
		w.breaks("Adobe is asked, and every first apply is held")
	case paused:
		w.breaks("Adobe is asked, and everything is paused")
	case len(w.files) == 1 && a.durable && time.Now().Before(a.notBefore): // each instance has a record of its own
		w.breaks("Adobe is asked before %v, which it has named", a.notBefore)
	}
}

// mustBeProbed is asked when a credential is applied that is not applied already.
func (r *rules) mustBeProbed(w *modelWorld, g *generation, f *modelFile, content string) {
	if !w.probes {
		return
	}
	// What Adobe has accepted before is on record for those that had the answer: they need not ask again.
	if w.adobe.refused == content && !w.adobe.accepted[content] {
		w.breaks("%s was applied to %s, and Adobe refuses it", content, f.name)
	}
	i := slices.IndexFunc(g.readings, func(told reading) bool { return told.version.content == content })
	if !w.adobe.accepted[content] && i >= 0 && time.Since(g.readings[i].at) < modelPatience {
		w.breaks("%s was applied to %s, and Adobe was not waited for", content, f.name)
	}
}

// isHeld reports whether the first apply must wait, for certain: nobody has ordered it, and the source told nothing but the first credential.
func (k *fileRules) isHeld(w *modelWorld) bool { return k.mayBeHeld && !k.mayBeOrdered && !w.toldOther }

// isStillHeld reports that while the world rests: an order that could not be saved may have been forgotten.
func (w *modelWorld) isStillHeld(f *modelFile) bool {
	k, record := w.rules.of[f], recordOnDisk(w.gen, f.name)
	first := slices.IndexFunc(w.versions, func(v *modelVersion) bool { return v.content == w.firstTold })
	isFirst := first < 0 || w.shown.content == w.firstTold || goesBack(w.shown, w.versions[first])
	return k.isHeld(w) || k.mayBeHeld && isFirst && record.Held != nil && !record.Held.Released
}

// byHandIn is a file in which somebody else set a credential.
func (w *modelWorld) byHandIn(f *modelFile) {
	f.attributes = byHand()
	k := w.rules.of[f]
	managed, _ := modelSink{f: f}.Managed(f.attributes)
	k.applies, k.mayBeHeld = []appliedOnce{{version: &modelVersion{}, attributes: managed}}, true
}

// firstLook is what has to be on record after the first start.
func (m *model) firstLook() {
	for _, f := range m.w.files {
		k := m.w.rules.of[f]
		if !k.mayBeHeld {
			continue
		}
		if record := recordOnDisk(m.w.gen, f.name); record.Held == nil {
			m.w.breaks("the first apply of %s is not held: %+v", f.name, record)
		}
		k.current, k.durable = 0, 0
	}
}

// Managed is what the real one does: the documented attributes.
func (s modelSink) Managed(seen credential.Attributes) (managed credential.Attributes, complete bool) {
	managed = seen.Select([]string{"authIMSTAClientId", "authIMSTAClientSecret", "authIMSTAId", "authIMSTAPrivateKey"})
	for _, a := range managed[:3] {
		if a.Absent || a.Value == "" {
			return managed, false
		}
	}
	return managed, true
}

// order is an operator's: what is held is applied, and Adobe is asked again.
func (m *model) order() {
	if !m.alive {
		return
	}
	w := m.w
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	w.mu.Lock()
	for _, k := range w.rules.of {
		mayBePaused := time.Now().Before(k.pauseEnd) // then it does nothing
		k.ordered, k.mayBeOrdered = k.ordered || !mayBePaused, k.mayBeOrdered || !time.Now().Before(k.pausedUntil)
	}
	w.adobe.refused, w.adobe.notBefore = "", time.Time{}
	w.mu.Unlock()
	err := w.gen.daemon.Ask(ctx, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("ordered: %v", err)
}

// adopt has what is on disk count as applied. It is asked for only where its outcome can be told.
func (m *model) adopt(f *modelFile) {
	w := m.w
	if !m.alive || w.hang != nil || !w.rules.unsavedSince.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	w.mu.Lock()
	w.adobe.notBefore = time.Time{} // it begins a check
	w.mu.Unlock()
	err := w.gen.daemon.Adopt(ctx, nil, f.name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("adopted: %v", err)
	k := w.rules.of[f]
	switch {
	case err != nil && strings.Contains(err.Error(), "not adopted"):
	case err != nil || w.gen.dead:
		k.mayBeAdopted, k.mayBeOrdered, w.adobe.refused = true, true, ""
	default:
		w.rules.adopted(w, f)
	}
}

func (r *rules) adopted(w *modelWorld, f *modelFile) {
	k, record := r.of[f], recordOnDisk(w.gen, f.name)
	managed, complete := modelSink{f: f}.Managed(f.attributes)
	i := slices.IndexFunc(w.versions, func(v *modelVersion) bool { return v.Equal(record.Version) })
	switch {
	case !complete || !slices.EqualFunc(managed, record.Attributes, credential.Attribute.Same):
		w.breaks("%s: %v was adopted, on disk is %v", f.name, record.Attributes, managed)
		return
	case i < 0:
		w.breaks("%s was adopted for version %v, which was never told", f.name, record.Version)
		return
	}
	isOurs := k.current >= 0 && !k.uncertain && k.applies[k.current].version.Number+len(k.applies[k.current].content) > 0 &&
		slices.EqualFunc(managed, k.wanted(), credential.Attribute.Same)
	if !isOurs {
		k.owed = 0
	}
	switch content := ""; {
	case isOurs && record.Digest != "": // it was applied, and no other version has come
		if content = k.applies[k.current].content; w.versions[i].content != content {
			w.breaks("%s was adopted, and version %d counts as %s", f.name, record.Version.Number, content)
		}
	default:
		k.applies = append(k.applies, appliedOnce{version: w.versions[i], attributes: managed, at: time.Now()})
		k.current = len(k.applies) - 1
	}
	k.durable, k.owedOnDisk = k.current, k.owed
	k.mayBeHeld, k.uncertain, k.open, k.drifted, k.couldNotPut, k.mayOwe = false, false, false, false, false, false
	f.isRight(w.gen)
	w.adobe.refused = ""
}
