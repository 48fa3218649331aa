// Command bench measures what a fleet of daemons does to one Vault, and what it gets from it: start-up, an idle time, an
// outage of some minutes and its end, and a rotation. The daemons are the real code of sources and sync in this process
// (package fleet), the Vault is a real one, and what is counted is what arrives in front of it.
//
// Each container has a role of its own; the secret is one for all. All daemons start at the same moment, which is the
// worst case, and their tokens are short-lived, so that all of them end in the outage, which is the worst case again.
//
// It prints each figure beside its bound, and fails when one does not hold.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type options struct {
	daemons                         int
	poll, steady, sealed, back, ttl time.Duration
	csv                             string
}

func main() {
	var o options
	flag.IntVar(&o.daemons, "daemons", 1000, "how many")
	flag.DurationVar(&o.poll, "poll", 30*time.Second, "watch.poll of each")
	flag.DurationVar(&o.ttl, "ttl", 5*time.Minute, "token_ttl of the roles")
	flag.DurationVar(&o.steady, "steady", 3*time.Minute, "of doing nothing")
	flag.DurationVar(&o.sealed, "sealed", 5*time.Minute, "that Vault is sealed for")
	flag.DurationVar(&o.back, "back", 2*time.Minute, "that is watched after its return")
	flag.StringVar(&o.csv, "csv", "fleet.csv", "file for the requests and events of each second; empty: none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-fleet:", err)
		stop()
		os.Exit(1)
	}
}

// measure runs all phases and reports. Its error is that of a phase, or names the bounds that do not hold.
func measure(ctx context.Context, o options) (err error) {
	b, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.end()) }()
	for _, phase := range []struct {
		name string
		run  func(context.Context) error
	}{
		{phaseStart, b.start},
		{phaseSettle, b.settle},
		{phaseSteady, b.idle},
		{phaseSealed, b.outage},
		{phaseBack, b.comeBack},
		{phaseRotation, b.rotation},
	} {
		fmt.Fprintf(os.Stderr, "%s  %s ...\n", time.Now().Format(time.TimeOnly), phase.name)
		b.begin(phase.name)
		if err := phase.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	b.begin("")
	if o.csv != "" {
		if err := b.writeSeries(o.csv); err != nil {
			return err
		}
	}
	return report(os.Stdout, b.figures())
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
