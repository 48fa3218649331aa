package connection

import "time"

const (
	// shortReadTimeout is how long the answer to a read is waited for at first. Vault answers in milliseconds; a node that is
	// stopped or cut off never does, while another connection may lead to one that can. A login has requestTimeout: one that
	// is given up may have been refused, and nobody would know.
	shortReadTimeout = 10 * time.Second
	// slowAfter is the number of reads in a row without an answer after which the next has twice as long, up to
	// requestTimeout: Vault is slow then. Fewer find one node of three that answers.
	slowAfter = 3
)

// readTimeout is how long the answer to a read is waited for. It counts the reads in a row that were not answered in time.
type readTimeout struct{ unanswered int }

func (t readTimeout) limit() time.Duration {
	return min(shortReadTimeout<<min(max(0, t.unanswered-slowAfter+1), 2), requestTimeout)
}

// learn takes the outcome of a read.
func (t *readTimeout) learn(took time.Duration, ranOut bool) {
	switch {
	case ranOut:
		t.unanswered++
	case took < shortReadTimeout:
		t.unanswered = 0
	}
}
