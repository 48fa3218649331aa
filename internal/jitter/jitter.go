// Package jitter makes waits random, so that many daemons that failed or started together do not come back together.
package jitter

import (
	"math/rand/v2"
	"time"
)

// The usual bounds of a wait after a failure.
const (
	First = time.Second
	Last  = time.Minute
)

// Backoff is a wait after so many failures in a row, one or more: anything up to a limit that doubles from first to last. last is at most
// 1024 times the first.
func Backoff(failures int, first, last time.Duration) time.Duration {
	return rand.N(min(first<<min(failures-1, 10), last))
}

// Around is d, or up to 10 % less or more.
func Around(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }
