// Package logtest collects logs for tests to read.
package logtest

import (
	"bytes"
	"sync"
)

// Buffer is a writer whose content may be read while others write. The zero value is empty.
type Buffer struct {
	mu      sync.Mutex
	content bytes.Buffer
}

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
