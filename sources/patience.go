package sources

import (
	"context"
	"errors"
	"net/http/httptrace"
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
func (p *patience) bound(ctx context.Context, g *gate) (context.Context, context.CancelFunc) {
	p.mu.Lock()
	limit, inRow := p.limit(), p.inRow
	p.mu.Unlock()
	bounded, answer := g.bound(ctx, limit)
	return bounded, func() {
		if ctx.Err() == nil {
			p.learn(inRow, answer.took(), errors.Is(context.Cause(bounded), context.DeadlineExceeded))
		}
		answer.cancel()
	}
}

// awaited is the wait for the answer to one request.
type awaited struct {
	gate   *gate
	limit  time.Duration
	giveUp context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer
	waiting bool      // for a connection
	since   time.Time // when it began to wait, or had the connection
}

// bound is a context for one request, which ends with DeadlineExceeded as its cause when an answer takes longer than limit. All
// requests share a connection, and the time that one waits for it is not Vault's answer being late: as long as other requests
// are answered, it waits its turn. When none is answered, all that wait are given up together. Its cancel must be called.
func (g *gate) bound(ctx context.Context, limit time.Duration) (context.Context, *awaited) {
	a := &awaited{gate: g, limit: limit, waiting: true, since: time.Now()}
	bounded, giveUp := context.WithCancelCause(ctx)
	a.giveUp = giveUp
	a.timer = time.AfterFunc(limit, a.late)
	return httptrace.WithClientTrace(bounded, &httptrace.ClientTrace{
		GetConn: func(string) { a.begin(true) }, // a second time after a redirect
		GotConn: func(httptrace.GotConnInfo) { a.begin(false) },
	}), a
}

func (a *awaited) begin(waiting bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting, a.since = waiting, time.Now()
	a.timer.Reset(a.limit)
}

// late gives the request up, unless its time has begun anew.
func (a *awaited) late() {
	a.mu.Lock()
	defer a.mu.Unlock()
	since := a.since
	if answered := a.gate.lastAnswer(); a.waiting && answered.After(since) {
		since = answered
	}
	if left := a.limit - time.Since(since); left > 0 {
		a.timer.Reset(left)
		return
	}
	a.giveUp(context.DeadlineExceeded)
}

func (a *awaited) took() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.since)
}

func (a *awaited) cancel() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer.Stop()
	a.giveUp(context.Canceled)
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
