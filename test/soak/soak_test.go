// Package soak_test lets daemons live through everything at once, for as long as one likes: rotations, editors that count, a
// drift war, a Vault that is cut off, sealed, slow or refuses, an nlserver that fails in every way, files and directories that
// go and come, signals, kills. Every now and then the faults pause, and the same questions are asked (quiet_test.go).
//
// One daemon is never restarted, and shows whether anything grows; the other one dies in every way there is.
package soak_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

var (
	minutes = flag.Float64("minutes", 0, "how long; 0: some 20 seconds")
	seed    = flag.Uint64("seed", 0, "of the faults' order and sizes; 0: any")
)

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }

const instance = "prod"

// maxReverts is reached now and then: a brake that engages is one of the things that happen.
const maxReverts = 600

func TestSoak(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	while, cycle := time.Duration(*minutes*float64(time.Minute)), 20*time.Second
	if while == 0 {
		while, cycle = 12*time.Second, 4*time.Second
	}
	t.Logf("seed %d", *seed)
	var all [2]figures
	began := time.Now()
	t.Run("daemons", func(t *testing.T) {
		for i, lasting := range []bool{true, false} {
			t.Run(map[bool]string{true: "never restarted", false: "restarted"}[lasting], func(t *testing.T) {
				t.Parallel()
				s := newSoak(t, lasting)
				s.run(while, cycle)
				all[i] = s.figures
			})
		}
	})
	if !t.Failed() {
		t.Log(line(time.Since(began), all[:]))
	}
}

// soak is one world with its daemon.
type soak struct {
	*world.World
	lasting bool // the daemon is never restarted
	crowd   *crowd
	figures figures

	// What the lane of Vault and nlserver knows.
	version int
	secret  string
	excused []window // in which a faulty nlserver, or what puts its damage right, was at the file

	seen map[*container.Daemon]int // bytes of its log that were looked at
}

func newSoak(t *testing.T, lasting bool) *soak {
	options := container.Options{
		Programs: world.Plain(),
		Settings: fmt.Sprintf("watch: {poll: 1s}\nschedule: {verify: \"@every 10s\"}\ndrift: {max_reverts: %d}\nlog: {level: info, format: text}", maxReverts),
		Campaign: "timeout: 2s, activate: {restart: [web, pipelined]}",
	}
	if !lasting { // each seals its own
		own, err := vaulttest.Launch(t.Context(), os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { own.Close() })
		options.Vault = own
	}
	w := world.New(t, options)
	s := &soak{World: w, lasting: lasting, seen: map[*container.Daemon]int{}}
	s.figures.mu, s.figures.faults = new(sync.Mutex), map[string]int{}
	s.crowd = newCrowd(w)
	w.Foreign[instance] = world.ForeignBytes(w.Read(instance))
	s.version, s.secret = w.NewSecret(instance)
	w.StartDaemon()
	w.InSync(1)
	return s
}

// run goes through cycles: two lanes of faults beside each other and the editors, then a quiet point.
func (s *soak) run(while, cycle time.Duration) {
	ctx, stop := context.WithCancel(s.Ctx)
	var editing sync.WaitGroup
	s.crowd.start(ctx, &editing)
	s.T.Cleanup(func() { stop(); editing.Wait() }) // also where the test is ended by a fault that fails
	outside := rand.New(rand.NewPCG(*seed, 1))
	host := rand.New(rand.NewPCG(*seed, 2))
	for began := time.Now(); time.Since(began) < while && !s.T.Failed(); {
		until := time.Now().Add(cycle * 3 / 4)
		lane := make(chan error, 1)
		go func() { lane <- s.lane(outsideFaults, outside, until) }()
		err := s.lane(hostFaults, host, until)
		s.Must(errors.Join(err, <-lane))
		s.quietPoint()
		if s.figures.quiet%15 == 0 {
			s.T.Logf("%v: %s", time.Since(began).Round(time.Second), s.figures)
		}
	}
	stop()
	editing.Wait()
	s.idle(min(time.Minute, while/6))
	s.ending()
}

// lane has one fault after the other until a time.
func (s *soak) lane(faults []fault, random *rand.Rand, until time.Time) error {
	for time.Now().Before(until) && s.Ctx.Err() == nil {
		f := faults[random.IntN(len(faults))]
		if f.restarts && s.lasting || f.seals && s.Vault.External {
			continue
		}
		if err := f.do(s, random); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		s.figures.count(f.name)
	}
	return nil
}

// line is what docs/faults.md records.
func line(took time.Duration, all []figures) string {
	var sum figures
	for _, f := range all {
		sum.add(f)
	}
	return fmt.Sprintf("soaked for %v, seed %d: %s", took.Round(time.Second), *seed, strings.TrimSpace(sum.String()))
}
