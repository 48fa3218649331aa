package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"campaign-credsync/test/container"
)

// usage is what /proc tells of a process.
type usage struct {
	cpu     time.Duration
	written int // bytes to disk
	rss     int // KiB
}

func measureIdle(ctx context.Context, c *container.Container, idle time.Duration) ([]figure, error) {
	d, err := running(ctx, c)
	if err != nil {
		return nil, err
	}
	defer d.Stop()
	// The start belongs to nothing that is idle.
	if err := wait(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	before, err := usageOf(d.PID())
	if err != nil {
		return nil, err
	}
	c.Proxy.Requests() // those of the start
	began := time.Now()
	if err := wait(ctx, idle); err != nil {
		return nil, err
	}
	after, err := usageOf(d.PID())
	if err != nil {
		return nil, err
	}
	minutes := time.Since(began).Minutes()
	data, all := 0, c.Proxy.Requests()
	for _, r := range all {
		if r.DataRead() {
			data++
		}
	}
	return []figure{
		{"idle, resident", fmt.Sprintf("%.1f MiB", float64(after.rss)/1024), "<= 16 MiB"},
		{"idle, CPU a minute", fmt.Sprintf("%.0f ms", float64((after.cpu-before.cpu).Milliseconds())/minutes), "<= 50 ms"},
		{"idle, bytes written to disk", fmt.Sprint(after.written - before.written), "0"},
		{fmt.Sprintf("idle, requests to Vault in %s at a poll of 30 s (reads of a secret)", idle),
			fmt.Sprintf("%d (%d)", len(all), data), "1 a poll (0)"},
	}, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func usageOf(pid int) (u usage, err error) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return u, err
	}
	// Behind the command in parentheses: field 3 on; utime and stime are fields 14 and 15, in ticks of 10 ms.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, i := range []int{11, 12} {
		ticks, err := strconv.Atoi(fields[i])
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	if u.written, err = procNumber(proc+"io", "write_bytes:"); err != nil {
		return u, err
	}
	u.rss, err = procNumber(proc+"status", "VmRSS:")
	return u, err
}

func procNumber(file, key string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, key)
}
