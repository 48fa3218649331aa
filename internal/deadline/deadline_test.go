package deadline_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"campaign-credsync/internal/deadline"
)

// TestRun: what ends in time is returned, the rest is left behind when its time is over, or soon after its context has ended.
func TestRun(t *testing.T) {
	took := func(d time.Duration) func() (string, error) {
		return func() (string, error) { time.Sleep(d); return "done", nil }
	}
	synctest.Test(t, func(t *testing.T) {
		if got, err := deadline.Run(t.Context(), time.Minute, "it", deadline.Disk, took(59*time.Second)); got != "done" || err != nil {
			t.Errorf("in time: %q, %v", got, err)
		}
		began := time.Now()
		if _, err := deadline.Run(t.Context(), time.Minute, "it", deadline.Disk, took(time.Hour)); err == nil || !strings.Contains(err.Error(), "it does not end (limit 1m0s)") {
			t.Errorf("late: %v", err)
		}
		if d := time.Since(began); d != time.Minute {
			t.Errorf("waited for %v", d)
		}
		for wait, want := range map[time.Duration]error{
			deadline.Grace - 1: nil, deadline.Grace + 1: context.Canceled,
		} {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := deadline.Run(ctx, time.Minute, "it", deadline.Disk, took(wait)); !errors.Is(err, want) {
				t.Errorf("%v after the end of its context: %v", wait, err)
			}
		}
		time.Sleep(time.Hour) // for what was left behind
	})
}
