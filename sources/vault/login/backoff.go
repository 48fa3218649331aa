package login

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"campaign-credsync/sources/vault/connection"
)

// MaxBackoff and firstBackoff bound the full jitter between failed logins.
const (
	MaxBackoff   = time.Minute
	firstBackoff = time.Second
)

// backoff spreads what failed and is tried again: full jitter, up to a cap.
type backoff struct {
	key      string // what failed last
	err      error  // how
	failures int    // in a row
	retryAt  time.Time
}

// over returns an error as long as what key names has to wait. Another than the one that failed need not.
func (b *backoff) over(key string) error {
	if key == b.key && time.Now().Before(b.retryAt) {
		return &BackoffError{Cause: b.err, Until: b.retryAt}
	}
	return nil
}

// failed notes that what key names failed.
func (b *backoff) failed(key string, err error) error {
	if _, throttled := errors.AsType[*connection.ThrottledError](err); throttled {
		return err // which says when to ask again
	}
	limit := min(firstBackoff<<min(b.failures, 10), MaxBackoff)
	b.failures++
	return b.wait(key, err, rand.N(limit))
}

// wait has what key names wait for d.
func (b *backoff) wait(key string, err error, d time.Duration) error {
	b.key, b.err, b.retryAt = key, err, time.Now().Add(d)
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

// RootText is the text of an error without the time of the next try, which makes the same cause look new.
func RootText(err error) string {
	if w, ok := errors.AsType[*BackoffError](err); ok {
		return w.Cause.Error()
	}
	return err.Error()
}

// jittered spreads what many daemons do after the same time: ±10 %.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
