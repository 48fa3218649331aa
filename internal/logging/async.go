package logging

import (
	"bytes"
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	maxWaiting   = 1024                   // lines that wait to be written
	closeTimeout = 500 * time.Millisecond // for what waits at the end
)

// asyncWriter writes in a goroutine of its own.
type asyncWriter struct {
	stream io.Writer
	direct *slog.Logger // to the stream itself, whatever the level
	lines  chan []byte
	lost   atomic.Int64 // lines that were not logged as lost yet
	ending chan struct{}
	ended  chan struct{}
}

// Write takes a line. It never blocks, and may be called from any goroutine, also after close.
func (w *asyncWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- bytes.Clone(line):
	default:
		w.lost.Add(1)
	}
	return len(line), nil
}

func (w *asyncWriter) work() {
	defer close(w.ended)
	for {
		select {
		case line := <-w.lines:
			w.write(line)
		case <-w.ending:
			for len(w.lines) > 0 {
				w.write(<-w.lines)
			}
			return
		}
	}
}

// write logs how many lines were lost once all that waited is written, as they came after it.
func (w *asyncWriter) write(line []byte) {
	if _, err := w.stream.Write(line); err != nil {
		w.lost.Add(1)
	} else if len(w.lines) == 0 {
		if lost := w.lost.Swap(0); lost > 0 {
			w.direct.Warn("log lines were lost", "count", lost)
		}
	}
}

// close does not wait for a reader that does not read.
func (w *asyncWriter) close() {
	close(w.ending)
	select {
	case <-w.ended:
	case <-time.After(closeTimeout):
	}
}
