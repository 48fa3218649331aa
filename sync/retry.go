package sync

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/jitter"
)

// longestAsked is the longest wait that an error may ask for. Beyond, another attempt costs nothing: the error comes back at once.
const longestAsked = 10 * time.Minute

// retry is the wait after failures. The zero value has not failed.
type retry struct {
	trouble
	attempt int
	at      time.Time // no attempt before
	reason  string    // of the last failure
	code    credential.Reason
}

// trouble is what goes wrong again and again, as the log has it. The zero value has not begun.
type trouble struct {
	since  time.Time
	level  slog.Level // the highest of its lines
	logged []string   // reasons that were logged, the newest last
}

// alarmAfter is how long trouble that may end by itself is a warning.
const alarmAfter = 10 * time.Minute

// report is what is logged of trouble: what it is, and what a person does about it where the error does not say that.
type report struct{ what, remedy string }

// log tells of trouble: a reason once, and once more when it needs a person that did not need one before. It reports whether it has.
func (t *trouble) log(log *slog.Logger, now time.Time, err error, what report, attrs ...any) bool {
	if t.since.IsZero() {
		t.since = now
	}
	level := slog.LevelWarn
	if credential.IsForOperator(err) || now.Sub(t.since) >= alarmAfter {
		level = slog.LevelError
	}
	fact := timeOfDay.ReplaceAllString(err.Error(), "")
	told := slices.Contains(t.logged, fact)
	if told && level <= t.level {
		return false
	}
	if !told {
		t.logged = append(slices.Clone(t.logged), fact)
		t.logged = t.logged[max(0, len(t.logged)-keptReasons):]
	}
	t.level = max(t.level, level)
	attrs = append(slices.Clone(attrs), "reason", err)
	if level == slog.LevelError && what.remedy != "" {
		attrs = append(attrs, "remedy", what.remedy)
	}
	log.Log(context.Background(), level, what.what, attrs...)
	return true
}

// keptReasons is how many reasons in a row are remembered: nodes of a cluster without a leader give three or four, in turn.
const keptReasons = 8

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
	if !r.log(log, now, err, what, attrs...) {
		log.Debug(what.what, append(attrs, "reason", err)...)
	}
}

// timeOfDay is what makes the same reason look new: nlserver's output and retry times carry it.
var timeOfDay = regexp.MustCompile(`(\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d(\.\d+)?Z?`)

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
