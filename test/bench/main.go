// Command bench measures the daemon from outside, as a process of its own, with a real Vault and the stand-in of
// nlserver. Times are compared with a floor that does the least work that could do the job, on the same file system and
// in turns with the daemon, because absolute times say more about the machine than about the program.
//
// It prints each figure beside what is asked for. It fails only for what must never happen: a revert or an update lost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/filesystem"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "floor" {
		fmt.Fprintln(os.Stderr, "floor:", floor(os.Args[2]))
		os.Exit(1)
	}
	reverts := flag.Int("reverts", 1000, "reverts of each kind")
	applies := flag.Int("applies", 200, "rotations for the overhead of an apply")
	pushes := flag.Int("pushes", 300, "rotations that Vault pushes")
	seconds := flag.Int("seconds", 30, "of several editors at work")
	idle := flag.Duration("idle", time.Minute, "of doing nothing")
	on := flag.String("on", "", "a file system to measure on: ext4, xfs, btrfs, tmpfs, overlay; empty: that of the checkout")
	only := flag.String("only", "", "the one part to measure: idle, restarts, reverts, applies, push, instances, editors; empty: all")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, *reverts, *applies, *pushes, *seconds, *idle, *on, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// figure is a line of the result.
type figure struct{ what, measured, asked string }

const instance = "prod"

func measure(ctx context.Context, reverts, applies, pushes, seconds int, idle time.Duration, on, only string) error {
	// On the file system of the checkout, as /tmp may be in memory.
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(here, ".bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if on != "" {
		mounted, unmount, err := filesystem.Mount(dir, on, nil)
		defer unmount()
		if err != nil {
			return err
		}
		dir = mounted
	}
	c, err := container.New(ctx, dir, container.Options{
		Instances: []string{instance},
		Settings:  "drift: {max_reverts: 10000}\n",
		Progress:  os.Stderr,
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, _, err := c.Rotate(ctx, instance); err != nil {
		return err
	}
	var all []figure
	var lost error
	for _, part := range []struct {
		name string
		run  func() ([]figure, error)
	}{
		{"idle", func() ([]figure, error) { return measureIdle(ctx, c, idle) }},
		{"restarts", func() ([]figure, error) { return measureRestarts(ctx, c) }},
		{"reverts", func() ([]figure, error) { return measureReverts(ctx, c, reverts) }},
		{"applies", func() ([]figure, error) { return measureApplies(ctx, c, applies) }},
		{"push", func() ([]figure, error) { return measurePush(ctx, dir, pushes) }},
		{"instances", func() ([]figure, error) { return measureInstances(ctx, dir, 50) }},
		{"editors", func() ([]figure, error) { return measureEditors(ctx, c, time.Duration(seconds)*time.Second) }},
	} {
		if only != "" && only != part.name {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s ...\n", part.name)
		figures, err := part.run()
		all = append(all, figures...)
		if errors.Is(err, errLost) {
			lost = errors.Join(lost, err)
		} else if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tMEASURED\tASKED")
	for _, f := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.what, f.measured, f.asked)
	}
	table.Flush()
	return lost
}

// errLost is what must never happen.
var errLost = errors.New("lost")

// running starts a daemon and waits until it is in sync.
func running(ctx context.Context, c *container.Container) (*container.Daemon, error) {
	d, err := c.Start(nil)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := c.Await(limited, func(s container.Status) bool { return s.Is("in_sync") }); err != nil {
		d.Kill()
		return nil, fmt.Errorf("%w\n%s", err, d.Log())
	}
	return d, nil
}

// quantile returns the value below which the share q of the (at least one) durations lie.
func quantile(durations []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }
