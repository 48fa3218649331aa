package jitter_test

import (
	"testing"
	"time"

	"campaign-credsync/internal/jitter"
)

// Waits are spread over the whole range, from nothing to a limit that doubles and ends at the last.
func TestBackoff(t *testing.T) {
	for failures, limit := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 60: time.Minute, 1_000_000: time.Minute,
	} {
		spreadOver(t, 0, limit, func() time.Duration { return jitter.Backoff(failures, jitter.First, jitter.Last) })
	}
	spreadOver(t, 0, time.Minute, func() time.Duration { return jitter.Backoff(8, time.Hour, time.Minute) })
}

func TestAround(t *testing.T) {
	spreadOver(t, 9*time.Second, 11*time.Second, func() time.Duration { return jitter.Around(10 * time.Second) })
}

// spreadOver fails where a thousand waits leave the range, or stay out of the first or the last tenth of it.
func spreadOver(t *testing.T, from, to time.Duration, wait func() time.Duration) {
	t.Helper()
	shortest, longest := wait(), time.Duration(0)
	for range 1000 {
		shortest, longest = min(shortest, wait()), max(longest, wait())
	}
	if tenth := (to - from) / 10; shortest < from || shortest > from+tenth || longest > to || longest < to-tenth {
		t.Errorf("waits from %s to %s, want them all over %s to %s", shortest, longest, from, to)
	}
}
