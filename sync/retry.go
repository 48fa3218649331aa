package sync

import (
	"errors"
	"log/slog"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/jitter"
	"campaign-credsync/internal/trouble"
)

// longestAsked is the longest wait that an error may ask for. Beyond, another attempt costs nothing: the error comes back at once.
const longestAsked = 10 * time.Minute

// retry is the wait after failures. The zero value has not failed.
type retry struct {
	trouble.Trouble
	attempt int
	at      time.Time // no attempt before
	reason  string    // of the last failure
	code    credential.Reason
}

// report is what is logged of a failure: what it is, and what a person does about it where the error does not say that.
type report struct{ what, remedy string }

// failed notes a failure and logs it, for debugging only where there is nothing new.
func (r *retry) failed(log *slog.Logger, now time.Time, err error, what report, attrs ...any) {
	r.failedWithin(jitter.First, jitter.Last, log, now, err, what, attrs...)
}

// failedWithin is failed with other bounds of the wait.
func (r *retry) failedWithin(first, last time.Duration, log *slog.Logger, now time.Time, err error, what report, attrs ...any) {
	r.attempt++
	r.at = now.Add(jitter.Backoff(r.attempt, first, last) + time.Millisecond)
	var asked interface{ RetryAt() time.Time }
	if errors.As(err, &asked) { // its wait has a jitter of its own, and may be of the wall clock alone
		if wait := asked.RetryAt().Sub(now); wait <= longestAsked {
			r.at = now.Add(max(0, wait))
		}
	}
	r.reason, r.code = err.Error(), credential.ReasonOf(err)
	attrs = append(attrs, "attempt", r.attempt)
	if !r.Tell(log, now, err, what.what, what.remedy, attrs...) {
		log.Debug(what.what, append(attrs, "reason", err)...)
	}
}

// due reports whether the next attempt may start.
func (r *retry) due(now time.Time) bool { return !now.Before(r.at) }

// isFailing reports whether the last attempt failed.
func (r *retry) isFailing() bool { return r.attempt > 0 }

// earlier returns the earlier of two times of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
