package sync

import (
	"time"

	"campaign-credsync/internal/credential"
)

// calm is how long a refusal that came again must have stayed away before the log has it that it is over.
const calm = 10 * time.Minute

// lifted is a refusal that is over, for now: where a source is a cluster of which one node is behind, the same one comes and
// goes with every poll, as one node answers or another. Status tells of each; the log tells of the second time, and then of
// the end.
// The zero value is none.
type lifted struct {
	refusal *credential.Refusal
	at      time.Time // last seen over
	again   bool      // it came a second time, and that was told
}

// comes takes a refusal and says whether it is worth a line.
func (l *lifted) comes(refusal *credential.Refusal, now time.Time) (news bool) {
	if l.refusal == nil || !sameRefusal(l.refusal, refusal) || now.Sub(l.at) >= calm {
		*l = lifted{}
		return true
	}
	news, l.again = !l.again, true
	return news
}

// goes takes the end of a refusal and says whether it is worth a line.
func (l *lifted) goes(refusal *credential.Refusal, now time.Time) (news bool) {
	again := l.again && sameRefusal(l.refusal, refusal)
	*l = lifted{refusal: refusal, at: now, again: again}
	return !again
}

// over is asked while nothing is refused, and says whether a refusal that came and went is worth its last line.
func (l *lifted) over(now time.Time) (news bool) {
	if l.refusal == nil || now.Sub(l.at) < calm {
		return false
	}
	news = l.again
	*l = lifted{}
	return news
}

func sameRefusal(a, b *credential.Refusal) bool {
	return a.Error() == b.Error() && a.Version.Equal(b.Version)
}
