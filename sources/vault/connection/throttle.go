package connection

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// maxRetryAfter bounds how long Vault is left alone on its own word: a header that is wrong must not cut a host off.
	maxRetryAfter = 5 * time.Minute
	// minSpread and maxSpread bound the time over which hosts return that were asked for the same wait: as long again.
	minSpread = 4 * time.Second
	maxSpread = time.Minute
)

// throttle is closed while Vault, or what stands before it, has asked to be left alone with Retry-After. It is one for all
// requests, as a quota that refuses one would refuse the others, and count them. Its methods may be called concurrently.
type throttle struct {
	mu     sync.Mutex
	until  time.Time
	status int // of the answer that closed it
}

// answered takes what an answer asks for. The wait is never shorter than asked for, unless that is above maxRetryAfter; what
// is added is random, as whatever refused this host has refused others too.
func (t *throttle) answered(response *http.Response) {
	seconds, _ := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 64) // the largest for one too large, 0 for no number
	if seconds == 0 || response.StatusCode < 400 {
		return
	}
	asked := time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := time.Now().Add(asked); until.After(t.until) {
		t.until, t.status = until.Add(rand.N(min(max(asked, minSpread), maxSpread))), response.StatusCode
	}
}

// Throttled returns nil, or a [*ThrottledError] while nothing may be asked.
func (c *Connection) Throttled() error {
	c.throttle.mu.Lock()
	defer c.throttle.mu.Unlock()
	if !time.Now().Before(c.throttle.until) {
		return nil
	}
	return &ThrottledError{vault: c.address, status: c.throttle.status, until: c.throttle.until}
}

// ResetThrottle is for somebody who wants an answer now.
func (c *Connection) ResetThrottle() {
	c.throttle.mu.Lock()
	defer c.throttle.mu.Unlock()
	c.throttle.until = time.Time{}
}

// ThrottledError is the error of a request that was answered with Retry-After, or is not made for that. It reads the same
// for all of them, as it is one fact.
type ThrottledError struct {
	vault  string // address
	status int
	until  time.Time
	cause  error // nil when nothing was asked
}

// Error says until when Vault wants to be left alone.
func (e *ThrottledError) Error() string {
	return fmt.Sprintf("vault at %s: %s; it wants to be asked no earlier than %s (Retry-After)",
		e.vault, statusMeans(e.status), e.until.UTC().Format(time.RFC3339))
}

// Unwrap returns the answer that asked for it, or nil.
func (e *ThrottledError) Unwrap() error { return e.cause }

// RetryAt is for whoever asks again: earlier there is no answer.
func (e *ThrottledError) RetryAt() time.Time { return e.until }
