package push

import (
	"context"
	"sync"

	"campaign-credsync/sources/vault/login"
)

// Health is what polls have found out about Vault, for the subscription, which must not be the one to find it out: it takes
// the token that they have, and leaves a Vault alone that does not answer them. The zero value knows nothing yet. Its
// methods may be called concurrently.
type Health struct {
	mu      sync.Mutex
	now     pollHealth
	changed chan struct{} // closed at the next change; nil while nobody waits
}

// pollHealth is what the polls so far have shown.
type pollHealth struct {
	token *login.Token // of the last poll that succeeded; nil before the first
	good  int          // polls that succeeded
	asked int          // times that the operator asked to try everything again
}

// Succeeded takes a poll that was answered, and its token.
func (h *Health) Succeeded(t *login.Token) {
	h.change(func(p *pollHealth) {
		p.good++
		if p.token == nil || !t.Born.Before(p.token.Born) { // a poll that was slow has the one before
			p.token = t
		}
	})
}

// AskAgain is an operator's order: a Vault that offered no events is asked again.
func (h *Health) AskAgain() { h.change(func(p *pollHealth) { p.asked++ }) }

func (h *Health) change(change func(*pollHealth)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(&h.now)
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

func (h *Health) get() pollHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// await returns what is known once it is enough, or the error of ctx.
func (h *Health) await(ctx context.Context, enough func(pollHealth) bool) (pollHealth, error) {
	for {
		h.mu.Lock()
		now := h.now
		if h.changed == nil {
			h.changed = make(chan struct{})
		}
		changed := h.changed
		h.mu.Unlock()
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
