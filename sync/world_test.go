package sync_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	stdsync "sync"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/state"
	"campaign-credsync/test/logtest"
)

// world is what the daemon acts on: a source, instances and activation, all in memory, with time that passes at once
// (testing/synctest). It is not a mock: tests ask what the world is like afterwards.
type world struct {
	t   *testing.T
	dir string
	log *logtest.Buffer

	source *source
	sinks  map[string]*sink
	active *activator
	config credsync.Config
	daemon *credsync.Daemon
	end    func() // of the daemon that runs

	askFirst bool // the next one is asked before it runs, as sync without a daemon does
}

const canary = "p8e-CANARYcanaryCANARYcanaryCANARYca"

func newWorld(t *testing.T, names ...string) *world {
	w := &world{t: t, dir: t.TempDir(), log: &logtest.Buffer{}, source: &source{}, sinks: map[string]*sink{}, active: &activator{}}
	for _, name := range names {
		s := &sink{attributes: credential.Attributes{}}
		w.sinks[name] = s
		w.config.Instances = append(w.config.Instances, credsync.Instance{Name: name, Source: w.source, Sink: s})
	}
	w.config.Activator = w.active
	w.config.Poll, w.config.Revert, w.config.MaxReverts = 30*time.Second, credsync.RevertSplice, 60
	w.config.CommandRuns = func() bool { return true }
	w.config.Logger = slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return w
}

// newInterruptedWorld is as a daemon leaves it that was killed while its command wrote version 2 over version 1. The
// command was quick.
func newInterruptedWorld(t *testing.T, owes bool) *world {
	t.Helper()
	w := newWorld(t, "prod")
	w.source.rotate("one")
	w.start()
	w.stop()
	w.source.rotate("two")
	store, err := state.Open(w.dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	record, err := store.Load("prod")
	if err != nil {
		t.Fatal(err)
	}
	record.Applying, record.RevertOwesActivation = &w.source.version, owes
	if err := store.Save("prod", record); err != nil {
		t.Fatal(err)
	}
	w.sinks["prod"].edit("authIMSTAClientId", "two")
	return w
}

// start runs a daemon and returns when its first full check is over.
func (w *world) start() {
	w.t.Helper()
	w.launch()
	<-w.daemon.Ready()
}

// launch is start without waiting.
func (w *world) launch() {
	w.t.Helper()
	store, err := state.Open(w.dir, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.config.Store = store
	w.run()
	w.t.Cleanup(func() {
		if strings.Contains(w.log.String(), canary) {
			w.t.Error("the secret is in the log")
		}
	})
}

// run has a daemon run on the store that is open.
func (w *world) run() {
	w.t.Helper()
	w.config.Instances = slices.Clone(w.config.Instances) // the daemon before keeps its own
	for i, in := range w.config.Instances {
		w.config.Instances[i].Steps = w.active.stepsOf(in.Name)
	}
	daemon := credsync.New(w.config)
	if w.askFirst {
		w.must(daemon.Ask(context.Background(), nil))
	}
	for i, in := range w.config.Instances {
		in.Sink.(*sink).touch = func() { daemon.Touched(i, false) }
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { daemon.Run(ctx); close(ended) }()
	w.daemon = daemon
	w.end = func() { cancel(); <-ended }
}

// reload has another daemon take the place of the one that runs, with another configuration.
func (w *world) reload(change func(*credsync.Config)) {
	w.t.Helper()
	if err := w.daemon.Drain(); err != nil {
		w.t.Fatal(err)
	}
	w.end()
	w.config.Before = w.daemon
	change(&w.config)
	w.run()
	w.config.Before = nil
}

func (w *world) stop() {
	w.end()
	w.config.Store.Close()
}

// recordOnDisk is what a start would find after a crash now.
func (w *world) recordOnDisk(name string) string {
	data, err := os.ReadFile(filepath.Join(w.dir, name+".json"))
	if err != nil {
		w.t.Error(err)
	}
	return string(data)
}

// settle lets everything happen that happens without time passing.
func (w *world) settle() {
	w.t.Helper()
	synctest.Wait()
	if what := w.daemon.Overslept(); what != "" {
		w.t.Errorf("nobody was woken, and there is something to do: %s", what)
	}
}

func (w *world) wantState(name string, want credsync.State) {
	w.t.Helper()
	w.settle()
	for _, in := range w.daemon.Status() {
		if in.Name == name && in.State != want {
			w.t.Fatalf("instance %s is %s (%s), want %s\n%s", name, in.State, in.LastError, want, w.log)
		}
	}
}

// told counts the lines of the log that hold text.
func (w *world) told(text string) int { return strings.Count(w.log.String(), text) }

func (w *world) wantOnDisk(name, clientID string) {
	w.t.Helper()
	w.settle()
	if got := w.sinks[name].get("authIMSTAClientId"); got != clientID {
		w.t.Fatalf("client id of %s on disk is %q, want %q\n%s", name, got, clientID, w.log)
	}
}

func (w *world) wantActivated(want ...string) {
	w.t.Helper()
	w.settle()
	if got := w.active.take(); !slices.Equal(got, want) {
		w.t.Fatalf("activated %q, want %q\n%s", got, want, w.log)
	}
}

// driftsFor is a hand edit of which the daemon hears only when it has been there for a while.
func (w *world) driftsFor(name string, age time.Duration, attribute, value string) {
	w.settle()
	s := w.sinks[name]
	var touch func()
	s.change(func(s *sink) { touch, s.touch = s.touch, nil })
	s.edit(attribute, value)
	time.Sleep(age)
	s.change(func(s *sink) { s.touch = touch })
}

// source is a secret with versions.
type source struct {
	mu      stdsync.Mutex
	version credential.Version
	secret  credential.Credential
	others  map[string]string   // client ids under other keys
	refused *credential.Refusal // what is read is of no use
	err     error
	hang    chan struct{} // not nil: answers only when closed
	words   time.Duration // that it goes on for when it was cut short while it hangs
	polls   int
	reads   int // of the secret itself
}

func (s *source) rotate(clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = credential.Version{Number: s.version.Number + 1, Created: time.Now(), Secret: s.version.Secret}
	s.secret = newCredential(clientID)
	s.err = nil
}

func newCredential(clientID string) credential.Credential {
	return credential.Credential{
		OrgID: "0123456789ABCDEF01234567@AdobeOrg", ClientID: clientID,
		TechnicalAccountID: "acct@techacct.adobe.com", ClientSecret: credential.NewSecret(canary),
	}
}

func (s *source) change(f func(s *source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *source) counts() (polls, reads int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.polls, s.reads
}

func (s *source) Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	s.mu.Lock()
	s.polls++
	hang, words := s.hang, s.words
	s.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			time.Sleep(words)
			return credential.Reading{}, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return credential.Reading{}, s.err
	}
	reading := credential.Reading{Version: s.version}
	if need(s.version) {
		s.reads++
		secret, others, refused := s.secret, s.others, s.refused
		reading.Credential = func(fields credential.Fields) (credential.Credential, *credential.Refusal) {
			c := secret
			if key := fields.Key(credential.FieldClientID); key != credential.FieldClientID {
				if c.ClientID = others[key]; c.ClientID == "" {
					return credential.Credential{}, &credential.Refusal{Version: reading.Version, Reason: "field client_id is missing"}
				}
			}
			return c, refused
		}
	}
	return reading, nil
}

// sink is a configuration file with random ciphertext, like the real one.
type sink struct {
	mu              stdsync.Mutex
	attributes      credential.Attributes
	writes          int
	applies         int
	lookErr         error
	lookTime        time.Duration // from reading to telling
	applyErr        error
	prepareTime     time.Duration // before the command is begun
	restoreErr      error
	restoreErrAfter error // though it was put back
	restoreTime     time.Duration
	beforeRestore   func() // drift is about to be put back
	recoverErr      error
	applyTime       time.Duration
	touch           func()
	changedAt       time.Time
}

func (s *sink) change(f func(s *sink)) {
	s.mu.Lock()
	f(s)
	touch := s.touch
	s.mu.Unlock()
	if touch != nil {
		touch()
	}
}

// edit is a hand edit.
func (s *sink) edit(name, value string) { s.editAt(time.Now(), name, value) }

// editAt is a hand edit that leaves the file with a change time.
func (s *sink) editAt(changedAt time.Time, name, value string) {
	s.change(func(s *sink) {
		s.attributes, s.changedAt = slices.Clone(s.attributes), changedAt
		for i := range s.attributes {
			if s.attributes[i].Name == name {
				s.attributes[i].Value = value
			}
		}
	})
}

func (s *sink) get(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attributes.Get(name).Value
}

func (s *sink) applied() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applies
}

func (s *sink) Recover(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recoverErr
}

func (s *sink) Look(context.Context) (credential.Attributes, error) {
	s.mu.Lock()
	found, err, takes := slices.Clone(s.attributes), s.lookErr, s.lookTime
	s.mu.Unlock()
	time.Sleep(takes)
	return found, err
}

func (s *sink) Apply(ctx context.Context, c credential.Credential, _ credential.Attributes) (credential.Attributes, time.Duration, error) {
	select {
	case <-time.After(s.prepareTime):
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	time.Sleep(s.applyTime) // time of the test's own world
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applies++
	if s.applyErr != nil {
		return nil, 0, s.applyErr
	}
	s.writes++
	s.changedAt = time.Now()
	s.attributes = credential.Attributes{
		{Name: "authIMSTAClientId", Value: c.ClientID},
		{Name: "authIMSTAClientSecret", Value: fmt.Sprintf("@cipher%d", s.writes)},
		{Name: "authIMSTAId", Value: c.TechnicalAccountID},
	}
	if s.touch != nil {
		s.touch() // one's own write comes back as an event
	}
	return append(slices.Clone(s.attributes), credential.Attribute{Name: "authIMSTAPrivateKey", Absent: true}), 0, nil
}

func (s *sink) Restore(_ context.Context, wanted credential.Attributes) (credential.Attributes, error) {
	time.Sleep(s.restoreTime)
	s.mu.Lock()
	found, err, takes := slices.Clone(s.attributes), s.lookErr, s.lookTime
	if err != nil || len(credential.Drift(wanted, found)) == 0 {
		s.mu.Unlock()
		time.Sleep(takes)
		if err != nil {
			found = nil
		}
		return found, err
	}
	defer s.mu.Unlock()
	if s.restoreErr != nil {
		return found, s.restoreErr
	}
	if s.beforeRestore != nil {
		s.beforeRestore()
	}
	s.changedAt = time.Now()
	s.attributes = slices.DeleteFunc(slices.Clone(wanted), func(a credential.Attribute) bool { return a.Absent })
	if s.touch != nil {
		s.touch()
	}
	return found, s.restoreErrAfter
}

func (s *sink) ChangedAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changedAt
}

func (s *sink) Owner() string { return "neolane" }

func (s *sink) Managed(seen credential.Attributes) (credential.Attributes, bool) {
	managed := seen.Select([]string{"authIMSTAClientId", "authIMSTAClientSecret", "authIMSTAId", "authIMSTAPrivateKey"})
	return managed, !slices.ContainsFunc(managed[:3], func(a credential.Attribute) bool { return a.Value == "" })
}

func (s *sink) WrongIDs(c credential.Credential, seen credential.Attributes) []string {
	return credential.Drift(credential.Attributes{
		{Name: "authIMSTAClientId", Value: c.ClientID}, {Name: "authIMSTAId", Value: c.TechnicalAccountID},
	}, seen)
}

// activator notes the steps that were run.
type activator struct {
	mu     stdsync.Mutex
	done   []string
	err    error
	steps  []string                    // default: reload
	proofs map[string]credential.Proof // by module
	looks  int
}

func (a *activator) stepsOf(instance string) []credential.Step {
	all := steps("reload")
	for _, s := range a.steps {
		all = append(all, steps(strings.ReplaceAll(s, "%", instance))...)
	}
	return all
}

// steps are those that the texts stand for.
func steps(texts ...string) []credential.Step {
	all := make([]credential.Step, len(texts))
	for i, text := range texts {
		_ = all[i].UnmarshalText([]byte(text))
	}
	return all
}

func (a *activator) Activate(_ context.Context, step credential.Step, _ time.Time) (credential.Proof, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = append(a.done, step.String())
	return a.proofs[step.Module], a.err
}

func (a *activator) Prove(module string, before []string) credential.Proof {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looks++
	return a.proofs[module]
}

// proves has the restarts and looks of a module come to this from now on.
func (a *activator) proves(module string, proof credential.Proof) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.proofs == nil {
		a.proofs = map[string]credential.Proof{}
	}
	a.proofs[module] = proof
}

func (a *activator) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	done := a.done
	a.done = nil
	return done
}

func (a *activator) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}
