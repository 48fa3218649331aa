package login

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"campaign-credsync/internal/credential"
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
	lasting  bool // another try mends nothing
}

// over returns an error as long as what key names has to wait. Another than the one that failed need not.
func (b *backoff) over(key string, asked asked) error {
	mayTry := asked == askedAgain || asked == askedNow && !b.lasting
	if key == b.key && time.Now().Before(b.retryAt) && !mayTry {
		return &BackoffError{Cause: b.err, Until: b.retryAt}
	}
	return nil
}

// leaveAlone notes that another try of what key names mends nothing. It is made in an hour all the same.
func (b *backoff) leaveAlone(key string, err error) error {
	*b = backoff{key: key, err: credential.NeedsOperator(err), retryAt: time.Now().Add(jittered(refusedFor)), lasting: true}
	return &BackoffError{Cause: b.err, Until: b.retryAt}
}

// failed notes that what key names failed.
func (b *backoff) failed(key string, err error) error {
	limit := min(firstBackoff<<min(b.failures, 10), MaxBackoff)
	b.key, b.err, b.lasting = key, err, false
	b.failures++
	if throttled, ok := errors.AsType[*connection.ThrottledError](err); ok {
		b.retryAt = throttled.RetryAt() // it has a jitter of its own, and its own words
		return err
	}
	b.retryAt = time.Now().Add(rand.N(limit))
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
