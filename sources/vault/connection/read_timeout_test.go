package connection

import (
	"testing"
	"time"
)

// A read is given up early the first time, and later where Vault is slow.
func TestReadTimeout(t *testing.T) {
	var timeout readTimeout
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
		limit := timeout.limit()
		took := min(c.answer, limit)
		timeout.learn(took, c.answer > limit)
		if took != c.took {
			t.Errorf("read %d, answered after %v, ended after %v, want %v", i, c.answer, took, c.took)
		}
	}
}
