package sources

import (
	"context"
	"sync"
)

// proof keeps what polls have found out about Vault, for the subscription, which must not be the one to find it out: it
// takes the token that they have, and leaves a Vault alone that does not answer them.
type proof struct {
	mu      sync.Mutex
	now     evidence
	changed chan struct{} // closed at the next change; nil while nobody waits
}

// evidence is what the polls so far have shown.
type evidence struct {
	token     *token // of the last poll that succeeded; nil before the first
	good, bad int    // polls that succeeded, and that did not
	asked     int    // times that the operator asked to try everything again
}

// silent reports whether no poll has ended since earlier.
func (e evidence) silent(earlier evidence) bool {
	return e.good == earlier.good && e.bad == earlier.bad
}

// failing reports whether polls have ended since earlier, and none succeeded.
func (e evidence) failing(earlier evidence) bool {
	return e.good == earlier.good && e.bad > earlier.bad
}

func (p *proof) change(change func(*evidence)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.now)
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// polled takes the outcome of a poll: t is the token that worked, nil when none did.
func (p *proof) polled(t *token) {
	p.change(func(e *evidence) {
		if t == nil {
			e.bad++
			return
		}
		e.good++
		if e.token == nil || !t.born.Before(e.token.born) { // a poll that was slow has the one before
			e.token = t
		}
	})
}

func (p *proof) ask() { p.change(func(e *evidence) { e.asked++ }) }

func (p *proof) get() evidence {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// await returns the evidence once it is enough, or the error of ctx.
func (p *proof) await(ctx context.Context, enough func(evidence) bool) (evidence, error) {
	for {
		p.mu.Lock()
		now := p.now
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		if enough(now) {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}
