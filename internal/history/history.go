// Package history keeps events in a file of the state directory, one JSON object a line, and reads them again.
//
// It holds up nobody: what cannot be written in time is dropped and counted. Lines are not synced, so a power loss takes the last ones; a
// process that is killed leaves at most one torn line, which readers pass over.
package history

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/sync/event"
)

const (
	fileName = "history.jsonl"
	older    = ".1"
	// MaxSize is how large the file becomes, in bytes, before it takes the place of the older one.
	MaxSize    = 8 << 20
	maxLine    = 64 << 10 // bytes; no line is as long
	maxWaiting = 4096     // events
	// tryAgain is how often the newest event that was dropped is tried again, while no other comes.
	tryAgain = 10 * time.Second
	// hangs is how long one event may take.
	hangs = 5 * time.Second
)

// Log appends events to the history of a state directory. Only one process may do so at a time.
type Log struct {
	path    string
	log     *slog.Logger
	dropped atomic.Int64
	failed  atomic.Pointer[string]    // why the last event was dropped; nil if it was not
	began   atomic.Pointer[time.Time] // of the write under way; nil: there is none
	news    chan struct{}             // 1 slot: lines wait
	ending  chan struct{}
	ended   chan struct{}

	mu      sync.Mutex
	waiting [][]byte // lines that are to be written

	// ---- belongs to work ----
	file *os.File // nil: to be opened
	size int64
	told int64  // of dropped
	lost []byte // the newest event that was dropped, until another one is written
}

// Open begins to append. The file is opened by the first event.
func Open(dir string, log *slog.Logger) *Log {
	l := &Log{
		path: filepath.Join(dir, fileName), log: log,
		news: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{}),
	}
	go l.work()
	return l
}

// Append takes an event. It never waits, and may be called from any goroutine, also after Close, when it drops the event.
func (l *Log) Append(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == maxWaiting {
		l.dropped.Add(1)
		return
	}
	l.waiting = append(l.waiting, e.Line())
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// Failing tells why events are being dropped; it is empty if they are not.
func (l *Log) Failing() string {
	if began := l.began.Load(); began != nil && time.Since(*began) > hangs {
		return fmt.Sprintf("writing %s does not end; see whether the disk or mount answers", l.path)
	}
	if why := l.failed.Load(); why != nil {
		return fmt.Sprintf("%d so far: %s", l.dropped.Load(), *why)
	}
	return ""
}

// Close waits until what was appended is written, and no longer than limit, as the disk may hang.
func (l *Log) Close(limit time.Duration) {
	close(l.ending)
	select {
	case <-l.ended:
	case <-time.After(limit):
	}
}

func (l *Log) work() {
	defer close(l.ended)
	defer l.close()
	for {
		var again <-chan time.Time
		if l.lost != nil {
			again = time.After(tryAgain)
		}
		select {
		case <-again:
			l.dropped.Add(-1)
			l.write(l.lost)
		case <-l.news:
			l.writeWaiting()
		case <-l.ending:
			l.writeWaiting()
			return
		}
	}
}

func (l *Log) writeWaiting() {
	for {
		l.mu.Lock()
		lines := l.waiting
		l.waiting = nil
		l.mu.Unlock()
		if len(lines) == 0 {
			return
		}
		for _, line := range lines {
			l.write(line)
		}
	}
}

// write appends a line, or drops it. Who cares about the history is told of the first failure, and of its end.
func (l *Log) write(line []byte) {
	now := time.Now()
	l.began.Store(&now)
	defer l.began.Store(nil)
	if err := l.append(line); err != nil {
		l.close()
		l.dropped.Add(1)
		l.lost = line
		why := err.Error()
		if l.failed.Swap(&why) == nil {
			l.log.Warn("history cannot be written, events are missing from it", "reason", err)
		}
		return
	}
	l.lost = nil
	if dropped := l.dropped.Load(); l.failed.Swap(nil) != nil || dropped > l.told {
		l.log.Info("history is written again", "count", dropped-l.told)
		l.told = dropped
	}
}

func (l *Log) append(line []byte) error {
	if err := l.ensureOpen(); err != nil {
		return err
	}
	if l.size > 0 && l.size+int64(len(line)) > MaxSize {
		if err := os.Rename(l.path, l.path+older); err != nil {
			return fmt.Errorf("start another history file: %w", err)
		}
		l.close()
		if err := l.ensureOpen(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	if err != nil && n > 0 {
		err = errors.Join(err, l.file.Truncate(l.size)) // no half of a line
	}
	if err == nil {
		l.size += int64(n)
	}
	return err
}

// ensureOpen opens the file that is at the path now. What is there may have been moved away, or be anything that somebody put there.
func (l *Log) ensureOpen() error {
	if l.file != nil {
		at, err := os.Lstat(l.path)
		open, err2 := l.file.Stat()
		if err == nil && err2 == nil && os.SameFile(at, open) && open.Size() == l.size {
			return nil
		}
		l.close()
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("open the history: %w; remove what is there", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular() || info.Sys().(*syscall.Stat_t).Nlink > 1:
		err = &os.PathError{Op: "open the history", Path: l.path, Err: errors.New("it is no file of its own; remove it")}
	default:
		err = endLine(f, info.Size())
	}
	if err == nil {
		info, err = f.Stat()
	}
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size = f, info.Size()
	return nil
}

// endLine ends the line in the middle of which a process was killed.
func endLine(f *os.File, size int64) error {
	last := []byte{'\n'}
	if size > 0 {
		if _, err := f.ReadAt(last, size-1); err != nil {
			return err
		}
	}
	if last[0] == '\n' {
		return nil
	}
	_, err := f.Write([]byte{'\n'})
	return err
}

func (l *Log) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}
