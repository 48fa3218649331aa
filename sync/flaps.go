package sync

import (
	"time"

	"campaign-credsync/internal/credential"
)

// flapCalm is how long a refusal that came back must stay away before the log says that it is over.
const flapCalm = 10 * time.Minute

// flapFilter decides which begins and ends of refusals are logged. Where one node of a cluster is behind, the same refusal comes and
// goes with every poll: its first return is logged, and then nothing before it stayed away for flapCalm. The zero value has seen
// nothing.
type flapFilter struct {
	last    *credential.Refusal // the one that ended last
	endedAt time.Time
	flaps   bool // it came back, and that was logged
}

// begins reports whether the begin of a refusal is logged.
func (f *flapFilter) begins(refusal *credential.Refusal, now time.Time) bool {
	if f.last == nil || !sameRefusal(f.last, refusal) || now.Sub(f.endedAt) >= flapCalm {
		*f = flapFilter{}
		return true
	}
	before := f.flaps
	f.flaps = true
	return !before
}

// ends reports whether the end of a refusal is logged.
func (f *flapFilter) ends(refusal *credential.Refusal, now time.Time) bool {
	flaps := f.flaps && sameRefusal(f.last, refusal)
	*f = flapFilter{refusal, now, flaps}
	return !flaps
}

// isOver reports, while nothing is refused, whether the last end of a refusal that came and went is logged now.
func (f *flapFilter) isOver(now time.Time) bool {
	if f.last == nil || now.Sub(f.endedAt) < flapCalm {
		return false
	}
	flaps := f.flaps
	*f = flapFilter{}
	return flaps
}

func sameRefusal(a, b *credential.Refusal) bool {
	return a.Error() == b.Error() && a.Version.Equal(b.Version)
}
