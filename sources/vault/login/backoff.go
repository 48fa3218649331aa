package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"campaign-credsync/internal/credential"
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

// Warning logs a failure that something older bridges: once for each cause. The zero Warning has logged none.
type Warning struct {
	cause string
	since time.Time
	level slog.Level
}

// Logged reports whether there was one.
func (w *Warning) Logged() bool { return w.cause != "" }

// alarmAfter is how long a failure that may end by itself is a warning.
const alarmAfter = 10 * time.Minute

// Log logs err as WARN, or as ERROR where waiting does not mend it, or has not for long.
func (w *Warning) Log(logger *slog.Logger, msg string, err error, attributes ...any) {
	cause := err.Error()
	if wait, ok := errors.AsType[*BackoffError](err); ok { // the time of the next try makes the same cause look new
		cause = wait.Cause.Error()
	}
	now := time.Now()
	if w.since.IsZero() {
		w.since = now
	}
	level := slog.LevelWarn
	if credential.IsForOperator(err) || now.Sub(w.since) >= alarmAfter {
		level = slog.LevelError
	}
	if cause == w.cause && level <= w.level {
		return
	}
	w.cause, w.level = cause, level
	logger.Log(context.Background(), level, msg, append(attributes, "reason", err.Error())...)
}
