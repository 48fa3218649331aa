package sources

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// shortestPatience is how long an answer to a read is waited for at first. Vault answers one in milliseconds. A node
	// that is stopped or cut off never does, nor does a standby that had forwarded to it, while another connection may lead
	// to a node that can: what is waited for here is time without a rotation.
	//
	// A login always has requestTimeout: one that is given up may have been refused, and nobody would know.
	shortestPatience = 10 * time.Second
	// patientFrom is the number of reads in a row without an answer after which the next has twice as long, and so on up
	// to requestTimeout: it is Vault that is slow, and asking again and again in vain would not make it faster. Fewer are
	// what a front that leads to three nodes in turn needs to find one that answers.
	patientFrom = 3
)

// patience is how long answers to reads are waited for. The zero value is the shortest. Its methods may be called
// concurrently.
type patience struct {
	mu    sync.Mutex
	inRow int // reads that ran out of it, one after the other
}

func (p *patience) limit() time.Duration {
	return min(shortestPatience<<min(max(0, p.inRow-patientFrom+1), 4), requestTimeout)
}

// bound is a context for one read, which learns from how that went when it is cancelled.
func (p *patience) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	p.mu.Lock()
	limit, inRow := p.limit(), p.inRow
	p.mu.Unlock()
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, limit)
	return bounded, func() {
		if ctx.Err() == nil {
			p.learn(inRow, time.Since(began), errors.Is(bounded.Err(), context.DeadlineExceeded))
		}
		cancel()
	}
}

// learn takes the outcome of a read that was begun after inRow others without an answer.
func (p *patience) learn(inRow int, took time.Duration, ranOut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case ranOut && inRow == p.inRow: // of several at the same time, one counts
		p.inRow++
	case !ranOut && took < shortestPatience:
		p.inRow = 0
	}
}
