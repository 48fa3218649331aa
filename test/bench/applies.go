package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"campaign-credsync/test/container"
)

// measureApplies measures what the daemon adds to nlserver's own time, from the poll that finds a new version to the
// moment that counts as applied.
func measureApplies(ctx context.Context, c *container.Container, n int) ([]figure, error) {
	d, err := running(ctx, c)
	if err != nil {
		return nil, err
	}
	defer d.Stop()
	own, err := nlserverTime(ctx, c)
	if err != nil {
		return nil, err
	}
	asker := c.Asker()
	var overheads []time.Duration
	for range n {
		c.Proxy.Requests() // of earlier polls
		ran := 0
		if runs, err := c.Runs(); err == nil {
			ran = len(runs)
		}
		version, _, err := c.Rotate(ctx, instance)
		if err != nil {
			return nil, err
		}
		status, err := asker.Sync(ctx)
		if err != nil {
			return nil, err
		}
		if !status.Applied(version) {
			return nil, fmt.Errorf("version %d was not applied: %+v", version, status)
		}
		var polled time.Time
		for _, r := range c.Proxy.Requests() {
			if strings.Contains(r.Path, "/metadata/") {
				polled = r.Time
				break
			}
		}
		runs, err := c.Runs()
		if err != nil {
			return nil, err
		}
		for _, r := range runs[ran:] {
			if r.Event == "end" && r.Kind == "set" {
				overheads = append(overheads, status.Instances[0].AppliedAt.Sub(polled)-own)
			}
		}
	}
	if len(overheads) == 0 {
		return nil, errors.New("nothing was measured")
	}
	return []figure{{
		fmt.Sprintf("apply overhead of %d, p99 (p50), less nlserver's own time (%s, from its start to its end)", len(overheads), ms(own)),
		fmt.Sprintf("%s (%s)", ms(quantile(overheads, 0.99)), ms(quantile(overheads, 0.5))), "<= 20 ms",
	}}, nil
}

// nlserverTime is what the stand-in takes, started by hand in the same way: the median from its start to its end.
func nlserverTime(ctx context.Context, c *container.Container) (time.Duration, error) {
	var times []time.Duration
	for range 50 {
		command := exec.CommandContext(ctx, filepath.Join(c.Home, "bin", "nlserver"), "config", "-instance:"+instance, "-?")
		command.Env = []string{"LD_LIBRARY_PATH=" + filepath.Join(c.Home, "lib")}
		began := time.Now()
		if out, err := command.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("run the stand-in by hand: %w: %s", err, out)
		}
		times = append(times, time.Since(began))
	}
	return quantile(times, 0.5), nil
}

func measureRestarts(ctx context.Context, c *container.Container) ([]figure, error) {
	var times []time.Duration
	asker := c.Asker()
	for range 20 {
		began := time.Now()
		d, err := c.Start(nil)
		if err != nil {
			return nil, err
		}
		for {
			status, err := asker.Status(ctx)
			if err == nil && status.Is("in_sync") {
				break
			}
			if time.Since(began) > 10*time.Second {
				d.Kill()
				return nil, fmt.Errorf("not in sync after 10 s: %w", err)
			}
			time.Sleep(500 * time.Microsecond)
		}
		times = append(times, time.Since(began))
		d.Kill() // without a farewell, as a crash would
	}
	size := "unknown"
	if info, err := os.Stat(c.Daemon()); err == nil {
		size = fmt.Sprintf("%.1f MiB", float64(info.Size())/(1<<20))
	}
	return []figure{
		{"restart after kill -9 to in sync, worst (median) of 20", fmt.Sprintf("%s (%s)", ms(quantile(times, 1)), ms(quantile(times, 0.5))), "<= 60 ms"},
		{"stripped binary", size, "<= 12 MiB"},
	}, nil
}
