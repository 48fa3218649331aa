package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"campaign-credsync/test/container"
)

// pushPause is the least time between two rotations. With four instances none is rotated more often than every second,
// from which on events of a secret bring its polls forward one by one.
const pushPause = 250 * time.Millisecond

// measurePush measures the time from the request that writes a version to the moment that counts as applied, where Vault
// pushes events: a Vault of its own, as that of the other figures has none. The next poll is an hour away.
func measurePush(ctx context.Context, dir string, n int) ([]figure, error) {
	dir = filepath.Join(dir, "push")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	instances := []string{"one", "two", "three", "four"}
	c, err := container.New(ctx, dir, container.Options{
		Instances: instances, Push: true, Settings: "watch: {poll: 1h}\n", Progress: os.Stderr,
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, name := range instances {
		if _, _, err := c.Rotate(ctx, name); err != nil {
			return nil, err
		}
	}
	d, err := running(ctx, c)
	if err != nil {
		return nil, err
	}
	defer d.Stop()
	for began := time.Now(); !strings.Contains(d.Log(), "subscribed to vault events"); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			return nil, fmt.Errorf("no subscription after 30 s: %s", d.Log())
		}
	}
	own, err := nlserverTime(ctx, c)
	if err != nil {
		return nil, err
	}
	asker := c.Asker()
	var writes, polls, times []time.Duration
	for i := range n {
		if err := wait(ctx, pushPause+rand.N(50*time.Millisecond)); err != nil {
			return nil, err
		}
		at := i % len(instances)
		c.Proxy.Requests()
		began := time.Now()
		version, _, err := c.Rotate(ctx, instances[at])
		if err != nil {
			return nil, err
		}
		writes = append(writes, time.Since(began))
		for {
			status, err := asker.Status(ctx)
			if err != nil {
				return nil, err
			}
			if in := status.Instances[at]; in.AppliedVersion == version {
				times = append(times, in.AppliedAt.Sub(began)-own)
				if requests := c.Proxy.Requests(); len(requests) > 0 {
					polls = append(polls, requests[0].Time.Sub(began))
				}
				break
			}
			if time.Since(began) > 10*time.Second {
				return nil, fmt.Errorf("version %d of %s is not applied after 10 s: %+v", version, instances[at], status)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	three := func(times []time.Duration) string {
		return fmt.Sprintf("%s (%s, %s)", ms(quantile(times, 0.99)), ms(quantile(times, 0.5)), ms(quantile(times, 1)))
	}
	return []figure{
		{fmt.Sprintf("write to applied with push, %d rotations, p99 (p50, worst), less nlserver's own time (%s)", n, ms(own)), three(times), "<= 150 ms"},
		{"  of which until Vault has answered the write", three(writes), "-"},
		{"  of which until the poll that the event brought forward", three(polls), "-"},
	}, nil
}
