package sync_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// newCrowd is a world of n instances, each with a source and a module of its own.
func newCrowd(t *testing.T, n int) *world {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("instance", i)
	}
	w := newWorld(t, names...)
	w.config.Logger = slog.New(slog.DiscardHandler)
	w.active.steps = []string{"restart pipelined@%"}
	for i := range names {
		s := &source{}
		s.rotate("one")
		w.config.Instances[i].Source = s
	}
	return w
}

// TestWorkOfManyInstances: what is done for one instance is not done again for each other one. Work is counted as allocations: each turn of
// a goroutine that waits, each decision and each status that is published takes some.
func TestWorkOfManyInstances(t *testing.T) {
	const few, many = 20, 160
	type counts struct{ start, polls, revert uint64 }
	count := func(n int) (c counts) {
		synctest.Test(t, func(t *testing.T) {
			w := newCrowd(t, n)
			c.start = allocations(w.start) / uint64(n)
			time.Sleep(time.Minute)
			c.polls = allocations(func() { time.Sleep(time.Hour) }) / uint64(n)
			w.settle()
			c.revert = allocations(func() {
				w.sinks["instance1"].edit("authIMSTAClientId", "mallory")
				synctest.Wait()
			})
			w.wantOnDisk("instance1", "one")
			w.wantState("instance1", credsync.StateInSync)
			w.stop()
		})
		t.Logf("%d instances: allocations of the start, for each: %d; of an hour of polls, for each: %d; of one revert: %d", n, c.start, c.polls, c.revert)
		return c
	}
	a, b := count(few), count(many)
	for _, c := range []struct {
		what      string
		few, many uint64
	}{{"the start", a.start, b.start}, {"an hour of polls", a.polls, b.polls}, {"one revert", a.revert, b.revert}} {
		if c.many > 2*c.few {
			t.Errorf("%s of one of %d instances takes %d allocations, of one of %d %d", c.what, few, c.few, many, c.many)
		}
	}
}

// allocations counts those that do makes, in all goroutines.
func allocations(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// BenchmarkFirstSync tells what CPU time the first check takes for each of many instances.
func BenchmarkFirstSync(b *testing.B) {
	for _, n := range []int{50, 200, 800} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var cpu time.Duration
			for range b.N {
				cpu += firstSync(b, n)
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N*n), "CPU-µs/instance")
		})
	}
}

func firstSync(b *testing.B, n int) time.Duration {
	dir, err := os.MkdirTemp("/dev/shm", "credsync-many-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := state.Open(dir, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	config := credsync.Config{
		Activator: &activator{}, Store: store, Poll: 30 * time.Second, Revert: credsync.RevertSplice, MaxReverts: 60,
		CommandRuns: func() bool { return true }, Logger: slog.New(slog.DiscardHandler),
	}
	for i := range n {
		s := &source{}
		s.rotate("one")
		config.Instances = append(config.Instances, credsync.Instance{
			Name: fmt.Sprint("instance", i), Source: s, Sink: &sink{attributes: credential.Attributes{}}, Steps: steps("reload"),
		})
	}
	daemon := credsync.New(config)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	before := cpuTime()
	go func() { daemon.Run(ctx); close(ended) }()
	<-daemon.Ready()
	took := cpuTime() - before
	stop()
	<-ended
	return took
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
