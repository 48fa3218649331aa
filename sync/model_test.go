package sync_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	stdsync "sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/state"
	"campaign-credsync/test/logtest"
)

var (
	modelSeed  = flag.Uint64("seed", 0, "run only the sequence of this seed (the daemon's own jitter stays random: use -count)")
	modelSteps = flag.Int("steps", 100_000/raceSlows, "steps of the model test, in all sequences together")
)

const stepsInSequence = 60

// lastFixedSeed: up to it, seeds are the same in each run, and their worlds may have Adobe and a first apply that is held. There the
// reference is not exact yet: of 6,000 random seeds, one was red by a rule that is too strict.
const lastFixedSeed = math.MaxUint32

// TestModel does at random what can happen to daemons one after the other, and holds them to a small reference of what must be.
func TestModel(t *testing.T) {
	seeds := []uint64{*modelSeed}
	if *modelSeed == 0 {
		seeds = nil
		for i := range max(1, *modelSteps/stepsInSequence/2) {
			seeds = append(seeds, 1+uint64(i), lastFixedSeed+1+rand.Uint64N(math.MaxUint64-lastFixedSeed))
		}
	}
	var mu stdsync.Mutex
	counts := map[string]int{}
	var workers stdsync.WaitGroup
	for first := range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := first; i < len(seeds) && !t.Failed(); i += runtime.GOMAXPROCS(0) { // one story is enough to read
				t.Run(fmt.Sprint("seed=", seeds[i]), func(t *testing.T) {
					steps := map[string]int{}
					runModel(t, seeds[i], steps)
					mu.Lock()
					defer mu.Unlock()
					for name, n := range steps {
						counts[name] += n
					}
				})
			}
		})
	}
	workers.Wait()
	t.Logf("%d sequences: %v", len(seeds), counts)
}

func runModel(t *testing.T, seed uint64, steps map[string]int) {
	root := stateRoot(t)
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, seed, root)
		defer func() {
			if len(m.w.broken) == 0 && !t.Failed() {
				return
			}
			t.Errorf("seed %d, again with: go test -run TestModel ./sync -seed %d -count 50\n%s\n\n%s\n\n%s", seed, seed,
				strings.Join(m.w.broken, "\n"), strings.Join(m.w.history, "\n"), m.log)
		}()
		defer m.end()
		for i := range stepsInSequence {
			m.step(steps)
			if i%30 == 29 {
				m.mustComeToRest()
			}
			if len(m.w.broken) > 0 {
				return
			}
		}
	})
}

// stateRoot is a directory in memory where there is one: a state directory on disk costs ten times as much as all the rest.
func stateRoot(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "credsync-model-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// model drives a world and the daemons in it.
type model struct {
	t      *testing.T
	w      *modelWorld
	log    *logtest.Buffer
	root   string
	starts int
	alive  bool
	wait   []func() // for the ends of killed daemons
	held   cron.Schedule

	holds     bool // a first apply over what somebody else set
	unordered bool // the source has no versions but contents
}

func newModel(t *testing.T, seed uint64, root string) *model {
	w := &modelWorld{rng: rand.New(rand.NewPCG(seed, 0)), fates: rand.New(rand.NewPCG(seed, 1))}
	for _, name := range []string{"prod", "stage"}[:1+w.rng.IntN(2)] {
		w.files = append(w.files, &modelFile{name: name, attributes: credential.Attributes{}})
	}
	w.rules = newRules(w.files)
	w.rules.mode = []credsync.RevertMode{credsync.RevertSplice, credsync.RevertSplice, credsync.RevertSplice,
		credsync.RevertApply, credsync.RevertAlert}[w.rng.IntN(5)]
	w.rules.maxReverts = 1 + w.rng.IntN(6)
	w.rules.allowRollback = w.rng.IntN(6) == 0
	m := &model{t: t, w: w, log: &logtest.Buffer{}, root: root, unordered: seed%4 == 3}
	if w.rng.IntN(8) == 0 {
		m.held = cron.Every(90 * time.Minute)
	}
	w.probes, m.holds = w.rng.IntN(3) > 0, w.rng.IntN(3) == 0
	if seed > lastFixedSeed {
		w.probes, m.holds = false, false
	}
	w.adobe.accepted, w.adobe.applied = map[string]bool{}, map[string]bool{}
	if m.holds {
		for _, f := range w.files[w.rng.IntN(len(w.files)):] {
			w.byHandIn(f)
		}
	}
	m.newVersion(fmt.Sprint("content", len(w.versions)), "")
	m.start()
	m.firstLook()
	return m
}

func (m *model) start() {
	w := m.w
	m.starts++
	g := &generation{born: time.Now(), dir: filepath.Join(m.root, fmt.Sprint(m.starts)), right: map[string]time.Time{}}
	if w.gen != nil && !w.gen.dead {
		g.dir = w.gen.dir // after an orderly end
	} else if w.gen != nil {
		os.Mkdir(g.dir, 0o700)
		for name, data := range w.gen.left {
			if err := os.WriteFile(filepath.Join(g.dir, name), data, 0o600); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	store, err := state.Open(g.dir, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	config := credsync.Config{
		Activator: modelActivator{w, g}, Store: store, Revert: w.rules.mode, MaxReverts: w.rules.maxReverts,
		Verify: cron.Every(10 * time.Minute), ActivateAt: m.held, Poll: time.Minute, CommandRuns: func() bool { return true }, HoldFirst: m.holds,
		Logger: slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if w.probes {
		config.Prober, config.Patience = modelProber{w, g}, modelPatience
	}
	source := modelSource{w, g}
	w.mu.Lock()
	for _, f := range w.files {
		record, err := store.Load(f.name)
		if err != nil {
			w.breaks("the record of %s cannot be read: %v", f.name, err)
		}
		w.rules.started(w, f, record)
		config.Instances = append(config.Instances, credsync.Instance{
			Name: f.name, Source: source, Sink: modelSink{w, g, f}, AllowRollback: w.rules.allowRollback,
			Steps: steps(stepsOf(f.name)...)})
	}
	w.rules.unsavedSince = time.Time{} // what kept records from being written was removed by OpenStore, as a stray
	w.activating = false
	w.note("daemon %d starts", m.starts)
	w.mu.Unlock()
	g.daemon = credsync.New(config)
	for i, f := range w.files {
		w.mu.Lock()
		f.touch = func(missed bool) { g.daemon.Touched(i, missed) }
		w.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	g.reap = func() { cancel(); <-ended; store.Close() }
	w.mu.Lock()
	w.gen, m.alive = g, true
	w.mu.Unlock()
	go func() { g.daemon.Run(ctx); close(ended) }()
	m.rest()
}

// rest lets everything happen that needs no time to pass.
func (m *model) rest() {
	synctest.Wait()
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if g := m.w.gen; m.alive && g.dead {
		m.alive = false
		over := make(chan struct{})
		go func() { g.reap(); close(over) }()
		m.wait = append(m.wait, func() { <-over })
	}
	if m.alive {
		if what := m.w.gen.daemon.Overslept(); what != "" {
			m.w.breaks("nobody was woken, and there is something to do: %s", what)
		}
		if m.w.gen.checks.Load() > 0 && m.w.gen.daemon.IsChecked() {
			m.w.breaks("a check is over and goes on")
		}
		m.w.rules.quiescent(m.w)
		m.checkClaims()
	}
}

// stop ends the daemon in good order.
func (m *model) stop() {
	m.w.gen.reap()
	m.alive = false
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if !m.w.rules.unsavedSince.IsZero() {
		m.w.rules.crashed(m.w) // it could not write down what it knew
	}
}

func (m *model) end() {
	m.w.mu.Lock()
	if m.w.hang != nil {
		close(m.w.hang)
		m.w.hang = nil
	}
	m.w.mu.Unlock()
	if m.alive {
		m.stop()
	}
	for _, wait := range m.wait {
		wait()
	}
	if strings.Contains(m.log.String(), canary) {
		m.w.breaks("the secret is in the log")
	}
}

func (m *model) newVersion(content, refusal string) {
	time.Sleep(time.Millisecond) // no two are created in the same instant
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	number := 1
	if n := len(m.w.versions); n > 0 {
		number = m.w.versions[n-1].Number + 1
	}
	m.write(number, content, refusal)
}

func (m *model) write(number int, content, refusal string) {
	v := &modelVersion{Version: credential.Version{Number: number, Created: time.Now()}, content: content, refusal: refusal}
	if m.unordered {
		v.Version = credential.ContentVersion([]byte("key"), fmt.Append(nil, content, refusal, len(m.w.versions)))
	}
	m.w.versions, m.w.shown = append(m.w.versions, v), v
	m.w.note("version %d is %s %s", number, content, refusal)
}

var errOutage = errors.New("connection refused")

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }
