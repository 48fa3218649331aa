// Package deadline sets a time limit for work that may hang in the kernel, where a mount or disk does not answer. Such work cannot be
// ended: its goroutine goes on, and the caller goes on without it.
package deadline

import (
	"context"
	"fmt"
	"time"
)

// Grace is how long work may go on after the end of its context.
const Grace = time.Second

// Disk is the remedy for work that only reads and writes files.
const Disk = "see whether the disk or mount answers"

// Run returns what work returns. When work does not end within limit, or within Grace after the end of ctx, Run returns an error that
// names it by what, and the remedy. Work may end later, so it must not change anything that others use.
func Run[T any](ctx context.Context, limit time.Duration, what, remedy string, work func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		value, err := work()
		ended <- outcome{value, err}
	}()
	cause := fmt.Errorf("%s does not end (limit %v): %s", what, limit, remedy)
	select {
	case o := <-ended:
		return o.value, o.err
	case <-time.After(limit):
	case <-ctx.Done():
		cause = fmt.Errorf("%s: %w", what, ctx.Err())
		select {
		case o := <-ended:
			return o.value, o.err
		case <-time.After(Grace):
		}
	}
	var none T
	return none, cause
}
