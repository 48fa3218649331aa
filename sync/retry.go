package sync

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
)

// The bounds of a wait between two attempts at the same thing.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
	// longestAsked is the longest wait that an error may ask for. Beyond, another attempt costs nothing: the error comes back at once.
	longestAsked = 10 * time.Minute
)

// retry is the wait after failures: full jitter, so that many daemons that failed together do not return together. The zero value has
// not failed.
type retry struct {
	attempt int
	at      time.Time // no attempt before
	reason  string    // of the last failure
	code    credential.Reason
	logged  []string // reasons that were logged, the newest last
}

// keptReasons is how many reasons in a row are remembered: nodes of a cluster without a leader give three or four, in turn.
const keptReasons = 8

// failed notes a failure and logs it: at level when its reason is new, else for debugging only.
func (r *retry) failed(log *slog.Logger, now time.Time, err error, level slog.Level, msg string, attrs ...any) {
	limit := min(firstRetry<<min(r.attempt, 6), lastRetry) // 1 s << 6 is above the cap
	r.attempt++
	r.at = now.Add(rand.N(limit) + time.Millisecond)
	var asked interface{ RetryAt() time.Time }
	if errors.As(err, &asked) { // its wait has a jitter of its own, and may be of the wall clock alone
		if wait := asked.RetryAt().Sub(now); wait <= longestAsked {
			r.at = now.Add(max(0, wait))
		}
	}
	r.reason, r.code = err.Error(), credential.ReasonOf(err)
	fact := timeOfDay.ReplaceAllString(r.reason, "")
	if slices.Contains(r.logged, fact) {
		level = slog.LevelDebug
	} else {
		r.logged = append(slices.Clone(r.logged), fact)
		r.logged = r.logged[max(0, len(r.logged)-keptReasons):]
	}
	log.Log(context.Background(), level, msg, append(attrs, "attempt", r.attempt, "reason", err)...)
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
