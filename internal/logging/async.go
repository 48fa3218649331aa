package logging

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	maxWaiting   = 1024                   // lines that wait to be written
	closeTimeout = 500 * time.Millisecond // for what waits at the end
)

// async has a handler write in the goroutine of a queue.
type async struct {
	slog.Handler
	queue *queue
}

// Handle takes a line. It never blocks, and may be called from any goroutine, also after the end.
func (a async) Handle(ctx context.Context, r slog.Record) error {
	r, ctx = r.Clone(), context.WithoutCancel(ctx)
	select {
	case a.queue.lines <- func() error { return a.Handler.Handle(ctx, r) }:
	default:
		a.queue.lost.Add(1)
	}
	return nil
}

func (a async) WithAttrs(attrs []slog.Attr) slog.Handler {
	return async{a.Handler.WithAttrs(attrs), a.queue}
}

func (a async) WithGroup(name string) slog.Handler { return async{a.Handler.WithGroup(name), a.queue} }

// queue writes lines in their order.
type queue struct {
	direct *slog.Logger // past the queue, whatever the level
	lines  chan func() error
	lost   atomic.Int64 // lines that were not logged as lost yet
	ending chan struct{}
	ended  chan struct{}
}

func (q *queue) work() {
	defer close(q.ended)
	for {
		select {
		case line := <-q.lines:
			q.write(line)
		case <-q.ending:
			for len(q.lines) > 0 {
				q.write(<-q.lines)
			}
			return
		}
	}
}

// write logs how many lines were lost once all that waited is written, as they came after it.
func (q *queue) write(line func() error) {
	if err := line(); err != nil {
		q.lost.Add(1)
	} else if len(q.lines) == 0 {
		if lost := q.lost.Swap(0); lost > 0 {
			q.direct.Warn("log lines were lost", "count", lost)
		}
	}
}

// close does not wait for a reader that does not read.
func (q *queue) close() {
	close(q.ending)
	select {
	case <-q.ended:
	case <-time.After(closeTimeout):
	}
}
