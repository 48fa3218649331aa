package login

import (
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/jitter"
	"campaign-credsync/sources/vault/connection"
)

// backoff is the wait after failures. The zero value has not failed.
type backoff struct {
	err      error // the last failure
	failures int   // in a row
	retryAt  time.Time
}

// over returns an error as long as the next try has to wait.
func (b *backoff) over() error {
	if time.Now().Before(b.retryAt) {
		return &BackoffError{Cause: b.err, Until: b.retryAt}
	}
	return nil
}

func (b *backoff) failed(err error) error {
	if _, throttled := errors.AsType[*connection.ThrottledError](err); throttled {
		return err // which says when to ask again
	}
	b.failures++
	b.err, b.retryAt = err, time.Now().Add(jitter.Backoff(b.failures, jitter.First, jitter.Last))
	return &BackoffError{Cause: err, Until: b.retryAt}
}

// BackoffError is the error of a login that is not tried yet.
type BackoffError struct {
	Cause error
	Until time.Time
}

// Error says why the login before failed, and when the next one may be made.
func (e *BackoffError) Error() string {
	return fmt.Sprintf("%v; next login not before %s", e.Cause, e.Until.UTC().Format(time.RFC3339))
}

// Unwrap returns why the login before failed.
func (e *BackoffError) Unwrap() error { return e.Cause }

// RetryAt is for whoever asks again: earlier there is no answer.
func (e *BackoffError) RetryAt() time.Time { return e.Until }
