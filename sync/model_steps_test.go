package sync_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// modelStep is something that can happen, as often as its weight says.
type modelStep struct {
	name   string
	weight int
	do     func(m *model, f *modelFile)
}

var modelStepsAll = []modelStep{
	{"rotate", 6, func(m *model, _ *modelFile) { m.newVersion(fmt.Sprint("content", len(m.w.versions)), "") }},
	{"same credential", 3, func(m *model, _ *modelFile) { m.newVersion(m.w.versions[len(m.w.versions)-1].content, "") }},
	{"earlier credential", 1, func(m *model, _ *modelFile) { m.newVersion(pick(m.w.rng, m.w.versions...).content, "") }},
	{"refused shape", 3, func(m *model, _ *modelFile) {
		m.newVersion(fmt.Sprint("content", len(m.w.versions)), "field client_secret is empty")
	}},
	{"written anew", 1, func(m *model, _ *modelFile) {
		time.Sleep(time.Millisecond)
		m.w.mu.Lock()
		m.write(1, fmt.Sprint("content", len(m.w.versions)), "")
		m.w.mu.Unlock()
	}},
	{"delete, undelete", 4, func(m *model, _ *modelFile) { m.w.shown.deleted = !m.w.shown.deleted }},
	{"standby", 3, func(m *model, _ *modelFile) {
		m.w.shown = pick(m.w.rng, m.w.versions...)
		m.w.note("shows version %d, %s", m.w.shown.Number, m.w.shown.content)
	}},
	{"newest again", 3, func(m *model, _ *modelFile) { m.w.shown = m.w.versions[len(m.w.versions)-1] }},
	{"outage", 3, func(m *model, _ *modelFile) { m.w.outage = errOutage }},
	{"hang", 1, func(m *model, _ *modelFile) {
		if m.w.hang == nil {
			m.w.hang = make(chan struct{})
		}
	}},
	{"back", 4, func(m *model, _ *modelFile) { m.reachable() }},

	{"edit", 10, func(m *model, f *modelFile) { m.edit(f) }},
	{"foreign edit", 2, func(m *model, f *modelFile) { f.changed() }},
	{"missing", 2, func(m *model, f *modelFile) { m.trouble(f, credential.ErrMissing) }},
	{"damaged", 2, func(m *model, f *modelFile) { m.trouble(f, credential.ErrDamaged) }},
	{"held", 2, func(m *model, f *modelFile) { m.trouble(f, credential.ErrBusy) }},
	{"whole", 6, func(m *model, f *modelFile) { m.whole(f) }},
	{"deaf", 2, func(m *model, f *modelFile) { f.hears(f.deaf) }},

	{"apply fails", 3, func(m *model, f *modelFile) {
		f.applyFaults = append(f.applyFaults, pick(m.w.rng, "before", "after", "half", "half for long"))
	}},
	{"slow apply", 3, func(m *model, f *modelFile) { f.applyTime = time.Duration(m.w.rng.IntN(50)) * time.Second }},
	{"slow look", 2, func(m *model, f *modelFile) { f.lookTime = 100 * time.Millisecond }},
	{"slow activation", 2, func(m *model, _ *modelFile) { m.w.activateTime = time.Duration(m.w.rng.IntN(20)) * time.Second }},
	{"activation fails", 2, func(m *model, _ *modelFile) { m.w.activateErr = fmt.Errorf("exit status 1") }},
	{"activation works", 3, func(m *model, _ *modelFile) { m.w.activateErr = nil }},
	{"restore fails", 2, func(m *model, f *modelFile) {
		f.restoreErr = pick(m.w.rng, fmt.Errorf("no space left on device"), credential.ErrBusy, credential.ErrCannotSplice)
	}},
	{"restore works", 3, func(m *model, f *modelFile) { f.restoreErr = nil }},
	{"recover fails", 1, func(m *model, f *modelFile) { f.recoverErr = fmt.Errorf("permission denied") }},
	{"recover works", 2, func(m *model, f *modelFile) { f.recoverErr = nil }},
	{"save fails", 3, func(m *model, _ *modelFile) { m.saveFails(true) }},
	{"save works", 4, func(m *model, _ *modelFile) { m.saveFails(false) }},

	{"Adobe refuses", 3, func(m *model, _ *modelFile) { m.w.adobe.refuses = true }},
	{"Adobe is silent", 2, func(m *model, _ *modelFile) { m.w.adobe.silent, m.w.adobe.later = true, 0 }},
	{"Adobe is busy", 2, func(m *model, _ *modelFile) {
		m.w.adobe.silent, m.w.adobe.later = true, time.Duration(1+m.w.rng.IntN(60))*time.Minute
	}},
	{"Adobe accepts", 4, func(m *model, _ *modelFile) { m.w.adobe.refuses, m.w.adobe.silent = false, false }},

	{"crash", 4, func(m *model, _ *modelFile) {
		if m.alive {
			m.w.crash("from outside")
		}
	}},
	{"crash soon", 6, func(m *model, _ *modelFile) { m.w.crashIn = 1 + m.w.rng.IntN(12) }},
	{"restart", 3, nil},
	{"start", 12, nil},
	{"check", 3, nil},
	{"order", 1, nil},
	{"adopt", 2, nil},
	{"pause", 3, nil},
	{"resume", 2, nil},
	{"milliseconds", 14, nil},
	{"seconds", 14, nil},
	{"minutes", 8, nil},
	{"hours", 2, nil},
}

func (m *model) step(count map[string]int) {
	s := m.choose()
	count[s.name]++
	w := m.w
	f := pick(w.rng, w.files...)
	w.mu.Lock()
	w.note("- %s (%s)", s.name, f.name)
	w.mu.Unlock()
	switch s.name {
	case "restart":
		if m.alive {
			m.stop()
			m.start()
		}
	case "start":
		if !m.alive {
			m.start()
		}
	case "check":
		if m.alive {
			w.adobe.notBefore = time.Time{} // it is an operator's word
			g := w.gen
			g.checks.Add(1)
			go func() { g.daemon.CheckAll(context.Background()); g.checks.Add(-1) }()
		}
	case "order":
		m.order()
	case "adopt":
		m.adopt(f)
	case "pause":
		m.pause(f)
	case "resume":
		m.resume(f)
	case "milliseconds":
		time.Sleep(time.Duration(w.rng.IntN(500)) * time.Millisecond)
	case "seconds":
		time.Sleep(time.Duration(w.rng.IntN(60_000)) * time.Millisecond)
	case "minutes":
		time.Sleep(time.Duration(w.rng.IntN(30)) * time.Minute)
	case "hours":
		time.Sleep(time.Duration(1+w.rng.IntN(3)) * time.Hour)
	case "rotate", "same credential", "earlier credential", "refused shape", "written anew":
		s.do(m, f)
	default:
		w.mu.Lock()
		s.do(m, f)
		w.mu.Unlock()
	}
	m.rest()
}

func (m *model) choose() modelStep {
	sum := 0
	for _, s := range modelStepsAll {
		sum += s.weight
	}
	n := m.w.rng.IntN(sum)
	for _, s := range modelStepsAll {
		if n -= s.weight; n < 0 {
			return s
		}
	}
	panic("no step")
}

// edit changes our attributes by hand, in a file that is there.
func (m *model) edit(f *modelFile) {
	if f.outOfOrder() != nil {
		return
	}
	a := append(credential.Attributes{}, f.attributes...)
	switch m.w.rng.IntN(6) {
	case 0:
		a = nil
	case 1:
		a = append(a, credential.Attribute{Name: "authIMSTAPrivateKey", Value: "@stray"})
	case 2:
		if k := m.w.rules.of[f]; k.current > 0 { // an old copy of the file is put back
			a = credential.Attributes{}
			for _, old := range k.applies[m.w.rng.IntN(k.current)].attributes {
				if !old.Absent {
					a = append(a, old)
				}
			}
		}
	default:
		if len(a) > 0 {
			a[m.w.rng.IntN(len(a))].Value = pick(m.w.rng, "mallory", "", "@stolen")
		}
	}
	f.attributes = a
	m.w.rules.of[f].drifted = true
	f.unheard = f.unheard || f.deaf
	f.changed()
}

// pause is an operator's order. It may fail where a crash or a disk is in its way, and then promises nothing.
func (m *model) pause(f *modelFile) {
	if !m.alive {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	until := time.Now().Add(6*time.Minute + time.Duration(m.w.rng.IntN(60))*time.Minute)
	err := m.w.gen.daemon.Pause(ctx, state.Pause{Since: time.Now(), Until: until}, f.name)
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.w.note("paused until %v: %v", until, err)
	k := m.w.rules.of[f]
	if until.After(k.pauseEnd) {
		k.pauseEnd = until
	}
	if err == nil && !m.w.gen.dead || until.Before(k.pausedUntil) { // one that failed may have taken the place of a longer one
		k.pausedUntil = until
	}
}

func (m *model) resume(f *modelFile) {
	if !m.alive {
		return
	}
	m.w.mu.Lock()
	k := m.w.rules.of[f]
	k.pausedUntil = time.Time{}
	m.w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	err := m.w.gen.daemon.Resume(ctx, nil, f.name)
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if err == nil && !m.w.gen.dead && k.pauseEnd.After(time.Now()) { // else the record may still say that it is paused
		k.pauseEnd = time.Now()
	}
}

func (m *model) trouble(f *modelFile, err error) {
	f.trouble, f.troubleAt = err, time.Now()
	f.unheard = f.unheard || f.deaf
	f.changed()
}

// whole is an editor that puts the file right that others had damaged.
func (m *model) whole(f *modelFile) {
	if f.trouble == nil {
		return
	}
	f.trouble = nil
	if f.torn {
		f.torn, f.attributes = false, f.before
	}
	f.changed()
}

func (m *model) reachable() {
	m.w.outage = nil
	if m.w.hang != nil {
		close(m.w.hang)
		m.w.hang = nil
	}
}

// saveFails puts a directory where a record is written first, or takes it away.
func (m *model) saveFails(fails bool) {
	if !m.alive {
		return
	}
	for _, f := range m.w.files {
		path := filepath.Join(m.w.gen.dir, f.name+".json.partial")
		if fails {
			os.Mkdir(path, 0o700)
		} else {
			os.Remove(path)
		}
	}
	r := m.w.rules
	switch {
	case fails && r.unsavedSince.IsZero():
		r.unsavedSince, r.behind = time.Now(), true
	case !fails && !r.unsavedSince.IsZero():
		m.w.mu.Unlock()
		time.Sleep(time.Minute + time.Second) // the longest wait for a retry
		m.w.mu.Lock()
		if m.alive && !m.w.gen.dead {
			r.unsavedSince = time.Time{}
		}
	}
}

// heal ends every fault. What the source shows stays as it is now and then, usable or not.
func (m *model) heal() {
	w := m.w
	w.mu.Lock()
	w.crashIn = 0
	w.note("everything is well from now on")
	m.reachable()
	w.activateErr, w.activateTime = nil, 0
	w.adobe.refuses, w.adobe.silent = false, false
	for _, f := range w.files {
		f.applyFaults, f.applyTime, f.lookTime, f.restoreErr, f.recoverErr = nil, 0, 0, nil, nil
		f.hears(true)
		m.whole(f)
	}
	m.saveFails(false)
	w.mu.Unlock()
	for _, f := range w.files {
		m.resume(f)
	}
	m.rest()
	if !m.alive {
		m.start()
	}
	if w.adobe.everRefused {
		m.order()
		m.rest()
	}
	if w.rng.IntN(3) > 0 {
		m.newVersion(fmt.Sprint("content", len(w.versions)), "")
	}
	m.rest()
}
