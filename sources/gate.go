package sources

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// askedCap bounds how long Vault is left alone on its own word: a header that is wrong must not cut a host off.
	askedCap = 5 * time.Minute
	// spreadFirst is the time over which hosts return that were asked for the same wait. It doubles with each answer in a
	// row that asks for another one, up to backoffCap, so that any number of hosts fits through in the end.
	spreadFirst = 4 * time.Second
)

// gate is closed while Vault, or what stands before it, has asked to be left alone with Retry-After. It is one for all
// requests: a quota that refuses one would refuse the others, and count them. It also knows since when nothing is answered.
// Its methods may be called concurrently.
type gate struct {
	mu     sync.Mutex
	until  time.Time
	status int // of the answer that closed it
	inRow  int // times it closed with nothing accepted between
	// downSince is when the first request failed after the last that did not: no answer, or one that says that Vault cannot
	// or does not want to. Zero: it answers.
	downSince time.Time
	answered  time.Time // when the last answer came, whatever it said
}

// note takes what an answer asks for. The wait begins now and is never shorter than asked for, unless that is above
// askedCap; what is added is random, as whatever refused this host has refused others too.
func (g *gate) note(response *http.Response, now time.Time) {
	asked := askedFor(response, now)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered = now
	switch status := response.StatusCode; {
	case status < 500 && status != http.StatusTooManyRequests:
		g.downSince = time.Time{}
	case g.downSince.IsZero():
		g.downSince = now
	}
	if asked == 0 {
		if response.StatusCode < 400 {
			g.inRow = 0
		}
		return
	}
	closed := now.Before(g.until)
	if closed && !now.Add(asked).After(g.until) {
		return
	}
	spread := min(max(asked, spreadFirst<<min(g.inRow, 10)), backoffCap)
	g.until, g.status = now.Add(asked+rand.N(spread)), response.StatusCode
	if !closed { // else it was asked before that was known
		g.inRow++
	}
}

func (g *gate) lastAnswer() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.answered
}

// failed notes that there was no answer.
func (g *gate) failed(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.downSince.IsZero() {
		g.downSince = now
	}
}

// down returns how long nothing has been answered.
func (g *gate) down(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.downSince.IsZero() {
		return 0
	}
	return now.Sub(g.downSince)
}

// closed returns nil or why nothing may be asked now.
func (g *gate) closed(v *Vault) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !time.Now().Before(g.until) {
		return nil
	}
	return &leftAlone{vault: v.address, status: g.status, until: g.until}
}

// closedBy returns f or, when an answer with that status has closed the gate, f with the time of the next request.
func (g *gate) closedBy(v *Vault, status int, f *failure) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if status != g.status || !time.Now().Before(g.until) {
		return f
	}
	return &leftAlone{vault: v.address, status: g.status, until: g.until, cause: f}
}

// open is the word of somebody who wants an answer now.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = time.Time{}
}

// askedFor returns the wait that an answer asks for with Retry-After, 0 for none. A date counts from the answer's own
// Date, as the clocks may differ. What cannot be read asks for nothing: there are waits of our own.
func askedFor(response *http.Response, now time.Time) time.Duration {
	text := response.Header.Get("Retry-After")
	if response.StatusCode < 400 || text == "" {
		return 0
	}
	if date, err := http.ParseTime(text); err == nil {
		if its, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			now = its
		}
		return min(max(0, date.Sub(now)), askedCap)
	}
	seconds, err := strconv.ParseUint(text, 10, 64)
	if err != nil && seconds == 0 { // a number that is too large is returned as the largest
		return 0
	}
	return time.Duration(min(seconds, uint64(askedCap/time.Second))) * time.Second
}

// leftAlone is the error of a request that was answered with Retry-After, or is not made for that. It reads the same
// for all of them, whatever was asked, as it is one fact.
type leftAlone struct {
	vault  string // address
	status int
	until  time.Time
	cause  error // nil when nothing was asked
}

func (l *leftAlone) Error() string {
	return fmt.Sprintf("vault at %s: %s; it wants to be asked no earlier than %s (Retry-After)",
		l.vault, statusMeans(l.status), l.until.UTC().Format(time.RFC3339))
}
func (l *leftAlone) Unwrap() error { return l.cause }

// RetryAt is for whoever asks again: earlier there is no answer.
func (l *leftAlone) RetryAt() time.Time { return l.until }
