package main

import (
	"context"
	"fmt"
	"time"
)

const (
	configLimit = 4 * time.Second  // also a signal to stop is not heard before
	fileLimit   = 10 * time.Second // for what reads and writes small files
	lookLimit   = time.Minute      // for a look that asks Vault too
	// stopGrace is how long what is under way may go on after the end of its context.
	stopGrace = time.Second
	// watchGrace is how long what brings hints may take to end. A reload goes on without it, too.
	watchGrace = 2 * time.Second
)

// within runs work, which may hang where a mount or disk does not answer, and returns what it returns. What does not end
// within limit, or soon after ctx has, is left behind; the error then says what.
func within[T any](ctx context.Context, limit time.Duration, what string, work func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		value, err := work()
		ended <- outcome{value, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	cause := fmt.Errorf("%s does not end (limit %v): see whether the disk or mount answers", what, limit)
	select {
	case o := <-ended:
		return o.value, o.err
	case <-timer.C:
	case <-ctx.Done():
		cause = fmt.Errorf("%s: %w", what, ctx.Err())
		timer.Reset(stopGrace)
		select {
		case o := <-ended:
			return o.value, o.err
		case <-timer.C:
		}
	}
	var none T
	return none, cause
}
