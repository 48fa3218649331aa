// Package hook tells a program of events: it is run for each, with one JSON object on its standard input.
//
// It holds up nobody. The program is run once at a time and at most ten times a minute; what happens meanwhile is joined into one event.
// What it fails at is not told again.
package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
)

const (
	perMinute = 10
	maxOutput = 1 << 10 // bytes of output that a failure quotes
	// killWait is how long a program that was killed, or has ended, may keep its output open.
	killWait = time.Second
	// closeGrace is how long Close waits for a program that it had killed.
	closeGrace = 200 * time.Millisecond
)

// The shell executes the program, as an exec that hangs on a mount holds up the whole process that asks for it.
const execute = `exec "$@"`

// Config says what to run.
type Config struct {
	Command []string      // the program and its arguments
	Timeout time.Duration // after which it is killed, with all its process group
	Env     []string      // its environment
	Logger  *slog.Logger
	Meter   Meter // nil: nobody counts
}

// Meter counts runs that failed. It does not block.
type Meter interface{ NotifyFailed() }

// Hook runs a program. Its methods may be called from any goroutine.
type Hook struct {
	cfg     Config
	pace    *rate.Limiter
	news    chan struct{} // 1 slot: next is there
	closing chan struct{}
	ended   chan struct{}
	cancel  context.CancelFunc // of the run under way

	mu      sync.Mutex
	next    *event.Event // waits to be told
	began   time.Time    // of the run under way; zero: there is none
	failing string       // why the last run failed; empty if it did not
}

// Open begins to wait for events.
func Open(cfg Config) *Hook {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Hook{
		cfg: cfg, pace: rate.NewLimiter(rate.Every(time.Minute/perMinute), perMinute),
		news: make(chan struct{}, 1), closing: make(chan struct{}), ended: make(chan struct{}), cancel: cancel,
	}
	go h.work(ctx)
	return h
}

// Tell takes an event. It never waits.
func (h *Hook) Tell(e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next != nil {
		e.Count = max(h.next.Count, 1) + 1
	}
	h.next = &e
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// Failing tells why the last run failed, or the one under way does not end; it is empty if neither is so.
func (h *Hook) Failing() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if limit := h.cfg.Timeout + 2*killWait; !h.began.IsZero() && time.Since(h.began) > limit {
		return fmt.Sprintf("%s does not end, even though it was killed after %v; see what disk or mount it waits for", h.cfg.Command[0], h.cfg.Timeout)
	}
	return h.failing
}

// Close has the program told of what waits, kills it when limit is over, and waits no longer for one that cannot be killed. It may be
// called once.
func (h *Hook) Close(limit time.Duration) {
	close(h.closing)
	defer time.AfterFunc(limit, h.cancel).Stop()
	select {
	case <-h.ended:
	case <-time.After(limit + closeGrace):
	}
}

func (h *Hook) work(ctx context.Context) {
	defer close(h.ended)
	defer h.cancel()
	for {
		select {
		case <-h.news:
			select {
			case <-time.After(h.pace.Reserve().Delay()):
			case <-h.closing:
			}
		case <-h.closing:
		}
		e := h.take()
		if e == nil {
			return // nothing waits at the end
		}
		h.mark(time.Now())
		err := h.run(ctx, *e)
		h.mark(time.Time{})
		h.note(err)
	}
}

// mark notes when the run under way began.
func (h *Hook) mark(began time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.began = began
}

// take returns what waits, or nil. It takes the news, too, as no event is left of which they could tell.
func (h *Hook) take() *event.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.next
	h.next = nil
	select {
	case <-h.news:
	default:
	}
	return e
}

// note logs that the program has begun to fail, and that it does so no more.
func (h *Hook) note(err error) {
	h.mu.Lock()
	failed := h.failing != ""
	h.failing = ""
	if err != nil {
		h.failing = err.Error()
	}
	h.mu.Unlock()
	if err != nil && h.cfg.Meter != nil {
		h.cfg.Meter.NotifyFailed()
	}
	switch {
	case err != nil && !failed:
		h.cfg.Logger.Warn("the program of notify.exec failed, it was not told of an event", "reason", err)
	case err == nil && failed:
		h.cfg.Logger.Info("the program of notify.exec works again")
	}
}

func (h *Hook) run(ctx context.Context, e event.Event) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	var output beginning
	c := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", execute, "sh"}, h.cfg.Command...)...)
	c.Stdin, c.Stdout, c.Stderr, c.Env, c.Dir = bytes.NewReader(e.Line()), &output, &output, h.cfg.Env, "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = killWait
	err := c.Run()
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay): // what it left running has its output still
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it was killed after %v; raise notify.timeout, or have it end sooner", h.cfg.Timeout)
	case errors.Is(ctx.Err(), context.Canceled):
		err = errors.New("it was killed, as the daemon stopped")
	}
	if len(output.kept) > 0 {
		err = fmt.Errorf("%w: it printed %q", err, credential.Clean(string(output.kept)))
	}
	return fmt.Errorf("run %s: %w", h.cfg.Command[0], err)
}

// beginning keeps the first bytes of what is written to it.
type beginning struct{ kept []byte }

func (b *beginning) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), maxOutput-len(b.kept))]...)
	return len(p), nil
}
