package logging

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"campaign-credsync/internal/config"
)

// gate is a stream whose reader does not read before it is opened.
type gate struct {
	reached, open chan struct{}
	once          sync.Once
	written       strings.Builder // to be read after the end
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.reached) })
	<-g.open
	return g.written.Write(p)
}

// TestLogReaderComesBack: who logs never waits; what found room is there in order, and then how much did not, whatever the level.
func TestLogReaderComesBack(t *testing.T) {
	g := newGate()
	log, end := New(config.Log{Level: "error", Format: "text"}, g, environment(), new(slog.LevelVar))
	var want strings.Builder
	say := func(n int) { log.Error("line", "n", n) }
	say(0)
	<-g.reached // by the first line, so the queue is empty
	for n := range maxWaiting + 10 {
		say(n + 1)
	}
	for n := range maxWaiting + 1 {
		fmt.Fprintf(&want, "level=ERROR msg=line n=%d\n", n)
	}
	want.WriteString("level=WARN msg=\"log lines were lost\" count=10\n")
	close(g.open)
	end()
	if got := untimed(t, g.written.String()); got != want.String() {
		t.Errorf("%d bytes, want %d; they end with %q", len(got), want.Len(), got[max(0, len(got)-200):])
	}
}

// TestLogIsWrittenAtTheEnd: no line is lost to a reader that reads.
func TestLogIsWrittenAtTheEnd(t *testing.T) {
	var out strings.Builder
	log, end := New(config.Log{Level: "info", Format: "text"}, &out, environment(), new(slog.LevelVar))
	for n := range maxWaiting / 2 {
		log.Info("line", "n", n)
	}
	end()
	if got := strings.Count(out.String(), "\n"); got != maxWaiting/2 {
		t.Errorf("%d lines, want %d", got, maxWaiting/2)
	}
	log.Info("too late") // and no panic
}

// TestLogReaderStaysAway: the end does not wait for it.
func TestLogReaderStaysAway(t *testing.T) {
	g := newGate()
	log, end := New(config.Log{Level: "info", Format: "text"}, g, environment(), new(slog.LevelVar))
	log.Info("line")
	end()
	close(g.open)
}
