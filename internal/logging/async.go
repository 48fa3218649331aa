package logging

import (
	"bytes"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
)

const (
	maxWaiting   = 1024                   // lines that wait to be written
	closeTimeout = 500 * time.Millisecond // for what waits at the end
)

// NewAsync is New for the daemon, which must not wait for the reader of its log: a write to a full pipe hangs until somebody reads.
// Lines for which there is no room are lost, and counted. level is set, and may be changed at any time. end writes the lines that wait,
// if they are read; the logger may be used after it, and writes nothing.
func NewAsync(c config.Log, stream io.Writer, env func(string) (string, bool), level *slog.LevelVar) (log *slog.Logger, end func()) {
	level.Set(levelOf(c))
	terminal := isTerminal(stream)
	w := &asyncWriter{
		stream: stream,
		direct: slog.New(handler(c, stream, terminal, env, slog.LevelInfo)),
		lines:  make(chan []byte, maxWaiting), ending: make(chan struct{}), ended: make(chan struct{}),
	}
	go w.work()
	return slog.New(handler(c, w, terminal, env, level)), w.close
}

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
