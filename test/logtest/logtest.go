// Package logtest collects logs for tests to read.
package logtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Buffer is a writer whose content may be read while others write. The zero value is empty.
type Buffer struct {
	mu      sync.Mutex
	content bytes.Buffer
}

// Write never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.Write(p)
}

// String returns what was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.String()
}

// Await waits until text was written.
func (b *Buffer) Await(ctx context.Context, text string) error {
	for !strings.Contains(b.String(), text) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %q is not in the log: %s", ctx.Err(), text, b)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}
