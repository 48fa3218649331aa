package sync

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"time"
)

// The bounds of a wait between two attempts at the same thing.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
	// longestAsked is up to when a source's own word about its next answer is taken. Beyond, asking costs nothing: it
	// answers by itself.
	longestAsked = 6 * time.Minute
)

// retry is the wait after failures: full jitter, so that many daemons that failed together do not return together.
// The zero value has not failed. It belongs to the loop.
type retry struct {
	attempt int
	at      time.Time // no attempt before
	reason  string    // of the last failure
	told    []string  // reasons that are no news, the newest last
}

// keptReasons is how many reasons in a row of failures are known: nodes of a cluster that has no leader give three or
// four, in turn.
const keptReasons = 8

// fail notes a failure and says whether its reason is new, so worth a line at more than debug level.
func (r *retry) fail(now time.Time, reason string) (news bool) {
	limit := lastRetry
	if r.attempt < 6 { // 1 s << 6 is above the cap
		limit = min(firstRetry<<r.attempt, lastRetry)
	}
	r.attempt++
	r.at = now.Add(rand.N(limit) + time.Millisecond)
	r.reason = reason
	fact := timeOfDay.ReplaceAllString(reason, "")
	if slices.Contains(r.told, fact) {
		return false
	}
	r.told = append(slices.Clone(r.told), fact)
	r.told = r.told[max(0, len(r.told)-keptReasons):]
	return true
}

// timeOfDay is what makes the same reason look new: nlserver's output and retry times carry it.
var timeOfDay = regexp.MustCompile(`(\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d(\.\d+)?Z?`)

// due reports whether the next attempt may start.
func (r *retry) due(now time.Time) bool { return !now.Before(r.at) }

// hurry lets the next attempt start at once, keeping the count.
func (r *retry) hurry() { r.at = time.Time{} }

func (r *retry) failed() bool { return r.attempt > 0 }

// jittered spreads d by 10 % to either side.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
