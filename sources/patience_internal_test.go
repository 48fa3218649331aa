package sources

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A read is given up early the first time, and later where Vault is slow.
func TestPatienceOfReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patience
		ask := func(answer time.Duration) (took time.Duration) {
			ctx, done := p.bound(t.Context(), &gate{})
			defer done()
			began := time.Now()
			select {
			case <-time.After(answer):
			case <-ctx.Done():
			}
			return time.Since(began)
		}
		const never = time.Hour
		for i, c := range []struct{ answer, took time.Duration }{
			{never, 10 * time.Second},
			{never, 10 * time.Second},
			{never, 10 * time.Second},
			{never, 20 * time.Second},
			{never, 35 * time.Second},
			{never, 35 * time.Second},
			{15 * time.Second, 15 * time.Second}, // slow, not stopped
			{15 * time.Second, 15 * time.Second},
			{time.Second, time.Second},
			{never, 10 * time.Second},
		} {
			if took := ask(c.answer); took != c.took {
				t.Errorf("read %d, answered after %v, ended after %v, want %v", i, c.answer, took, c.took)
			}
		}
		// Given up by its asker: nothing is learnt.
		ctx, cancel := context.WithCancel(t.Context())
		bounded, done := p.bound(ctx, &gate{})
		cancel()
		<-bounded.Done()
		done()
		ask(never)
		ask(never)
		if took := ask(never); took != 20*time.Second || !errors.Is(bounded.Err(), context.Canceled) {
			t.Errorf("after %v, %v", took, bounded.Err())
		}
	})
}
