package sources

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// backoffFirst and backoffCap bound the full jitter between failed logins.
	backoffFirst = time.Second
	backoffCap   = time.Minute
)

// backoff spreads what failed and is tried again: full jitter, up to a cap.
type backoff struct {
	key      string    // what failed last
	err      error     // how
	failures int       // in a row
	retryAt  time.Time // when it may be tried again
}

// over returns an error as long as what key names has to wait. Another than the one that failed need not.
func (b *backoff) over(key string, now time.Time) error {
	if key == b.key && now.Before(b.retryAt) {
		return &waiting{cause: b.err, until: b.retryAt}
	}
	return nil
}

// failed notes that what key names failed, at a time when nothing had been answered for down. The wait is up to as long as
// that, as it is not this that is in trouble: a token that ends in an outage must not begin with short waits again.
func (b *backoff) failed(key string, now time.Time, down time.Duration, err error) error {
	limit := min(max(backoffFirst<<min(b.failures, 10), down), backoffCap)
	b.key, b.err = key, err
	b.failures++
	if alone, ok := errors.AsType[*leftAlone](err); ok {
		b.retryAt = alone.until // it has a jitter of its own, and its own words
		return err
	}
	b.retryAt = now.Add(rand.N(limit))
	return &waiting{cause: err, until: b.retryAt}
}

// waiting is the error of a login that is not tried yet.
type waiting struct {
	cause error
	until time.Time
	floor bool // only because the last one was not long ago
}

func (w *waiting) Error() string {
	return fmt.Sprintf("%v; next login not before %s", w.cause, w.until.UTC().Format(time.RFC3339))
}
func (w *waiting) Unwrap() error { return w.cause }

// RetryAt is for whoever asks again: earlier there is no answer.
func (w *waiting) RetryAt() time.Time { return w.until }

func rootText(err error) string {
	if w, ok := errors.AsType[*waiting](err); ok {
		return w.cause.Error()
	}
	return err.Error()
}

// jitter spreads what many daemons do after the same time: ±10 %.
func jitter() float64 { return 0.9 + 0.2*rand.Float64() }
