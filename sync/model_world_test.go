package sync_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	stdsync "sync"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// modelWorld is what the daemons of one sequence act on, one after the other: a source, files, processes to be told. It
// outlives them, as Campaign does. One lock guards all of it, the rules included.
type modelWorld struct {
	mu      stdsync.Mutex
	rng     *rand.Rand // of the driver alone
	fates   *rand.Rand // of crashes, which come when they come
	history []string
	broken  []string // rules that were broken

	versions []*modelVersion // all that were ever written
	shown    *modelVersion   // the newest, or an older one by a standby
	outage   error
	hang     chan struct{}
	reads    int // of a secret

	adobe     modelAdobe
	probes    bool   // Adobe is asked before an apply
	firstTold string // content that the source told first
	toldOther bool   // and it has told another since

	files        []*modelFile
	activateErr  error
	activateTime time.Duration
	activating   bool
	rules        *rules
	effects      int // counts what happened, so that before and after can be told
	crashIn      int // effects until the crash; 0 = none is planned
	gen          *generation
}

// modelVersion is one version of the secret.
type modelVersion struct {
	credential.Version
	content string
	refusal string // it is of no use, and why
	deleted bool
}

// modelFile is the configuration file of an instance.
type modelFile struct {
	name       string
	attributes credential.Attributes
	trouble    error // others made it so
	torn       bool  // our command left it so
	before     credential.Attributes
	writes     int
	command    *command // at work
	deaf       bool     // events are lost
	unheard    bool     // an edit was made that no event told of, and nobody has looked since
	touch      func(missed bool)

	// When the file was changed last, and first after the daemon had seen it right; whether that one was not told of all.
	changedAt, heardAt time.Time
	missed             bool

	applyTime   time.Duration
	lookTime    time.Duration // from reading to telling
	looking     bool
	troubleAt   time.Time
	applyFaults []string // of the next applies
	restoreErr  error
	recoverErr  error
}

// command is one run of nlserver. It may outlive the daemon that started it.
type command struct {
	by     *generation
	killed bool
	wrote  bool
}

// generation is one daemon from its start to its end or its death.
type generation struct {
	born     time.Time
	dead     bool
	left     map[string][]byte // its state directory at the moment of death
	dir      string
	daemon   *credsync.Daemon
	gone     credential.Version // see sources.KV
	readings []reading
	right    map[string]time.Time // when it last saw the file as it should be
	reap     func()
	checks   atomic.Int32 // under way
}

var errDead = errors.New("this daemon was killed")

func (w *modelWorld) note(format string, args ...any) {
	w.history = append(w.history, time.Now().Format("02 15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (w *modelWorld) breaks(format string, args ...any) {
	w.note("BROKEN: "+format, args...)
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

// effect is called, locked, before and after everything that a daemon does to the world. It reports whether the daemon is
// dead, and kills it when its time has come.
func (w *modelWorld) effect(g *generation, what string) (dead bool) {
	w.effects++
	if g.dead {
		return true
	}
	if w.crashIn > 0 {
		if w.crashIn--; w.crashIn == 0 {
			w.crash(what)
			return true
		}
	}
	return false
}

// crash kills the daemon: from here on nothing it does has an effect, and what is on its disk stays as it is now.
func (w *modelWorld) crash(when string) {
	g := w.gen
	w.note("crash %s", when)
	w.crashIn = 0
	g.dead, g.left = true, readState(g.dir)
	for _, f := range w.files {
		if c := f.command; c != nil && !c.wrote {
			switch w.fates.IntN(3) {
			case 0: // killed with it, before it wrote
				c.killed = true
				f.command = nil
			case 1: // killed in the middle of the write
				c.killed = true
				f.command, f.torn = nil, true
			} // or it lives on
		}
	}
	w.rules.crashed(w)
}

type modelSource struct {
	w *modelWorld
	g *generation
}

func (s modelSource) Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	s.w.mu.Lock()
	dead, hang := s.w.effect(s.g, "before a poll"), s.w.hang
	s.w.mu.Unlock()
	if dead {
		return credential.Reading{}, errDead
	}
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return credential.Reading{}, ctx.Err()
		}
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	v := s.w.shown
	switch {
	case s.g.dead:
		return credential.Reading{}, errDead
	case s.w.outage != nil:
		return credential.Reading{}, s.w.outage
	case v.deleted:
		s.g.gone = v.Version
		s.g.readings = append(s.g.readings, reading{time.Now(), v, true})
		return credential.Reading{}, &credential.Refusal{Version: v.Version, Reason: "is deleted"}
	case !v.Equal(s.g.gone) && !need(v.Version):
		s.g.readings = append(s.g.readings, reading{time.Now(), v, false})
		return credential.Reading{Version: v.Version}, nil
	}
	s.g.readings = append(s.g.readings, reading{time.Now(), v, v.refusal != ""})
	if v.refusal != "" {
		return credential.Reading{}, &credential.Refusal{Version: v.Version, Reason: v.refusal}
	}
	s.g.gone = credential.Version{}
	s.w.reads++
	s.w.toldOther = s.w.toldOther || s.w.firstTold != "" && s.w.firstTold != v.content
	s.w.firstTold = cmp.Or(s.w.firstTold, v.content)
	return credential.Reading{Version: v.Version, Credential: of(newCredential(v.content))}, nil
}

// of is the Credential of a reading, whatever the fields are called.
func of(c credential.Credential) func(credential.Fields) (credential.Credential, *credential.Refusal) {
	return func(credential.Fields) (credential.Credential, *credential.Refusal) { return c, nil }
}

// modelSink keeps the contract of credsync.Sink, as package sinks does on disk.
type modelSink struct {
	w *modelWorld
	g *generation
	f *modelFile
}

func (s modelSink) Recover(context.Context) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	switch {
	case s.w.effect(s.g, "before recovering "+s.f.name):
		return errDead
	case s.f.command != nil:
		return credential.ErrStillRunning
	case s.f.recoverErr != nil:
		return s.f.recoverErr
	case s.f.torn && s.f.trouble == nil:
		s.f.torn, s.f.attributes = false, s.f.before
		s.f.changed()
	}
	if s.w.effect(s.g, "after recovering "+s.f.name) {
		return errDead
	}
	return nil
}

func (f *modelFile) changed() {
	f.changedAt = time.Now()
	if f.heardAt.IsZero() {
		f.heardAt = f.changedAt
	}
	f.missed = f.missed || f.deaf
	if f.touch != nil && !f.deaf {
		f.touch(false)
	}
}

// hears has events of the file come, or be lost from now on, which its watcher says.
func (f *modelFile) hears(again bool) {
	f.deaf, f.missed = !again, true
	if f.touch != nil {
		f.touch(true)
	}
}

func (f *modelFile) outOfOrder() error {
	if f.trouble == nil && f.torn {
		return credential.ErrDamaged
	}
	return f.trouble
}

func (s modelSink) Look(context.Context) (credential.Attributes, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.w.effect(s.g, "before a look at "+s.f.name) {
		return nil, errDead
	}
	if err := s.f.outOfOrder(); err != nil {
		return nil, err
	}
	s.w.rules.looked(s.w, s.g, s.f)
	seen := slices.Clone(s.f.attributes)
	s.takeTime()
	return seen, nil
}

// takeTime lets others write between the moment in which the file was read and the one in which that is told.
func (s modelSink) takeTime() {
	if s.f.lookTime == 0 {
		return
	}
	s.f.looking = true
	takes := s.f.lookTime
	s.w.mu.Unlock()
	time.Sleep(takes)
	s.w.mu.Lock()
	s.f.looking = false
}

func (s modelSink) Apply(_ context.Context, c credential.Credential, _ credential.Attributes) (credential.Attributes, time.Duration, error) {
	w, f := s.w, s.f
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.effect(s.g, "before applying to "+f.name) {
		return nil, 0, errDead
	}
	if err := f.outOfOrder(); err != nil {
		return nil, 0, err
	}
	w.rules.applyBegins(w, s.g, f, c)
	defer func() {
		if !s.g.dead {
			w.rules.of[f].open = false
		}
	}()
	fault := ""
	if len(f.applyFaults) > 0 {
		fault, f.applyFaults = f.applyFaults[0], f.applyFaults[1:]
	}
	cmd := &command{by: s.g}
	f.command, f.before = cmd, slices.Clone(f.attributes)
	took := f.applyTime
	w.mu.Unlock()
	time.Sleep(took)
	w.mu.Lock()
	w.note("nlserver at the end of its work on %s: %s, fault %q, killed %v", f.name, c.ClientID, fault, cmd.killed)
	if cmd.killed {
		return nil, 0, errDead
	}
	if fault == "before" {
		f.command = nil
		return nil, 0, errors.New("nlserver exited with status 1")
	}
	f.writes++
	f.attributes = credential.Attributes{
		{Name: "authIMSTAClientId", Value: c.ClientID},
		{Name: "authIMSTAClientSecret", Value: fmt.Sprintf("@cipher%d", f.writes)},
		{Name: "authIMSTAId", Value: c.TechnicalAccountID},
	}
	cmd.wrote, w.rules.of[f].byCommand = true, f.attributes
	f.torn = fault == "half" || fault == "half for long"
	f.changed()
	if w.effect(s.g, "after nlserver wrote "+f.name) {
		f.command = nil
		return nil, 0, errDead
	}
	f.command = nil
	switch {
	case f.trouble != nil: // somebody else damaged it meanwhile: no proof, and what was written may stay
		w.rules.of[f].drifted = true
		return nil, 0, f.trouble
	case fault == "half for long":
		return nil, 0, fmt.Errorf("cannot be put right yet: %w", credential.ErrBusy)
	case fault != "":
		f.torn, f.attributes = false, f.before
		f.changed()
		return nil, 0, errors.New("nlserver exited with status 1 after it had written")
	}
	written := append(slices.Clone(f.attributes), credential.Attribute{Name: "authIMSTAPrivateKey", Absent: true})
	w.rules.applied(w, s.g, f, c.ClientID, written)
	w.effect(s.g, "after applying to "+f.name)
	return written, took, nil
}

func (modelSink) Owner() string { return "neolane" }

func (modelSink) WrongIDs(credential.Credential, credential.Attributes) []string { return nil }

func (s modelSink) ChangedAt() time.Time {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.f.changedAt
}

func (s modelSink) Restore(_ context.Context, wanted credential.Attributes) (credential.Attributes, error) {
	w, f := s.w, s.f
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.effect(s.g, "before a look that puts back "+f.name) {
		return nil, errDead
	}
	if err := f.outOfOrder(); err != nil {
		return nil, err
	}
	found := append(credential.Attributes{}, f.attributes...) // not nil, which says that it could not look
	if len(credential.Drift(wanted, found)) == 0 {
		w.rules.looked(w, s.g, f)
		s.takeTime()
		return found, nil
	}
	if f.restoreErr != nil {
		w.rules.of[f].couldNotPut = true
		return found, f.restoreErr
	}
	w.note("%s is put back", f.name)
	f.attributes = slices.DeleteFunc(slices.Clone(wanted), func(a credential.Attribute) bool { return a.Absent })
	w.rules.restored(w, s.g, f, found)
	f.changed()
	w.effect(s.g, "after putting back "+f.name)
	return found, nil
}
