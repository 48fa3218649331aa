package sources

import (
	"context"
	"errors"
	"sync"
	"time"
)

// shortestPatience is how long an answer to a read is waited for at first. Vault answers one in milliseconds. A node that
// is stopped or cut off never does, nor does a standby that had forwarded to it, while another connection would lead to a
// node that can: what is waited for here is time without a rotation. Doubled after a read that ran out of it, up to
// requestTimeout, so that a Vault that is slow is not asked in vain again and again.
//
// A login always has requestTimeout: one that is given up may have been refused, and nobody would know.
const shortestPatience = 10 * time.Second

// patience is how long answers to reads are waited for. The zero value is the shortest. Its methods may be called
// concurrently.
type patience struct {
	mu    sync.Mutex
	limit time.Duration
}

// bound is a context for one read, which learns from how that went when it is cancelled.
func (p *patience) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	p.mu.Lock()
	limit := max(p.limit, shortestPatience)
	p.mu.Unlock()
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, limit)
	return bounded, func() {
		if ctx.Err() == nil {
			p.learn(limit, time.Since(began), errors.Is(bounded.Err(), context.DeadlineExceeded))
		}
		cancel()
	}
}

// learn takes the outcome of a read that had limit.
func (p *patience) learn(limit, took time.Duration, ranOut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case ranOut:
		p.limit = min(2*limit, requestTimeout)
	case took < shortestPatience:
		p.limit = 0
	}
}
