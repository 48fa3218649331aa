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
	maxWaiting   = 1024                   // that wait to be written
	closeTimeout = 500 * time.Millisecond // for what waits at the end
)

// asyncWriter writes the daemon's log in a goroutine of its own. Whoever reads the log may stop to read and not go away, and then
// a write to a full pipe never returns: that must hold up no revert. Lines that find no room are lost, and counted.
type asyncWriter struct {
	stream io.Writer
	tell   func(lost int64) // on the stream itself
	lines  chan []byte
	lost   atomic.Int64 // and not told of
	ending chan struct{}
	ended  chan struct{}
}

// newAsyncWriter starts an asyncWriter, which close ends.
func newAsyncWriter(stream io.Writer, tell func(lost int64)) *asyncWriter {
	o := &asyncWriter{stream: stream, tell: tell, lines: make(chan []byte, maxWaiting),
		ending: make(chan struct{}), ended: make(chan struct{})}
	go o.work()
	return o
}

// NewAsync is New with an asyncWriter before the stream.
func NewAsync(c config.Log, stream io.Writer, env func(string) (string, bool), level *slog.LevelVar) (log *slog.Logger, end func()) {
	SetLevel(level, c)
	terminal := isTerminal(stream)
	direct := slog.New(logHandler(c, stream, terminal, env, new(slog.LevelVar))) // tells also where only errors are wanted
	o := newAsyncWriter(stream, func(lost int64) { direct.Warn("log lines were lost", "count", lost) })
	return slog.New(logHandler(c, o, terminal, env, level)), o.close
}

// Write takes a line. It never blocks, and may be called from any goroutine, also after close.
func (o *asyncWriter) Write(line []byte) (int, error) {
	select {
	case o.lines <- bytes.Clone(line):
	default:
		o.lost.Add(1)
	}
	return len(line), nil
}

func (o *asyncWriter) work() {
	defer close(o.ended)
	for {
		select {
		case line := <-o.lines:
			o.write(line)
		case <-o.ending:
			for {
				select {
				case line := <-o.lines:
					o.write(line)
				default:
					return
				}
			}
		}
	}
}

// write tells of lost lines once all that waited is written: they came after it.
func (o *asyncWriter) write(line []byte) {
	if _, err := o.stream.Write(line); err != nil {
		o.lost.Add(1)
		return
	}
	if len(o.lines) > 0 {
		return
	}
	if lost := o.lost.Swap(0); lost > 0 {
		o.tell(lost)
	}
}

// close writes what waits, and gives up on a reader that does not read.
func (o *asyncWriter) close() {
	close(o.ending)
	select {
	case <-o.ended:
	case <-time.After(closeTimeout):
	}
}
