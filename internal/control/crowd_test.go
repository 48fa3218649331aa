package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	stdsync "sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bulky is a daemon whose history is more than a socket takes.
type bulky struct{ waiting }

func (bulky) History() ([]byte, error) { return make([]byte, 8<<20), nil }

func listening(t *testing.T, d Daemon) (path string, s *Server) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control.sock")
	s, err := Listen(path, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Serve(d)
	return path, s
}

// dialled connects, and says something. What comes back is not read.
func dialled(t *testing.T, path, says string) net.Conn {
	t.Helper()
	var c net.Conn
	for {
		var err error
		if c, err = net.Dial("unix", path); err == nil {
			break
		}
		if !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		time.Sleep(minTurn) // nothing tells when there is room in the queue
	}
	t.Cleanup(func() { c.Close() })
	c.SetWriteDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, says) // it may be closed meanwhile
	return c
}

// TestStatusAmongBadAskers: however many say nothing, say half, send a body slowly or do not read, status answers, and all are closed.
func TestStatusAmongBadAskers(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{
		"silent":            "",
		"half a header":     "GET /status HTTP/1.1\r\nHost: dae",
		"half a body":       "POST /pause HTTP/1.1\r\nHost: daemon\r\nContent-Length: 1000000\r\n\r\nx",
		"endless body":      "GET /status HTTP/1.1\r\nHost: daemon\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
		"reads no history":  "GET /history HTTP/1.1\r\nHost: daemon\r\n\r\n",
		"reads no refusals": strings.Repeat("GET /nothing HTTP/1.1\r\nHost: daemon\r\n\r\n", 1000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, s := listening(t, bulky{})
			for range 10 * maxConnections {
				dialled(t, path, says)
			}
			if status, err := AskStatus(t.Context(), path); err != nil || !status.InSync() {
				t.Errorf("status: %+v, %v", status, err)
			}
			crowd := s.listener.(*crowd)
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(minTurn) {
				crowd.mu.Lock()
				open := len(crowd.open)
				crowd.mu.Unlock()
				if open > maxConnections {
					t.Fatalf("%d are open", open)
				}
				if open == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d stay open", open)
				}
			}
		})
	}
}

// TestManyAskAtOnce: each of them is answered.
func TestManyAskAtOnce(t *testing.T) {
	t.Parallel()
	path, _ := listening(t, waiting{})
	var all stdsync.WaitGroup
	for range 10 * maxConnections {
		all.Go(func() {
			if status, err := AskStatus(t.Context(), path); err != nil || !status.InSync() {
				t.Errorf("status: %+v, %v", status, err)
			}
		})
	}
	all.Wait()
}

// TestEndlessHeader: it is refused, long before its end.
func TestEndlessHeader(t *testing.T) {
	t.Parallel()
	path, _ := listening(t, waiting{})
	c := dialled(t, path, "GET /status HTTP/1.1\r\nHost: daemon\r\n")
	line, taken := []byte("X-A: "+strings.Repeat("a", 1000)+"\r\n"), 0
	for taken < 1<<30 {
		n, err := c.Write(line)
		taken += n
		if err != nil {
			break
		}
	}
	if taken >= 1<<20 {
		t.Errorf("%d bytes were taken", taken)
	}
	if answer, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("it is answered %s", answer.Status)
	}
}

// TestOrderKeepsItsConnection: those that say nothing push no order out.
func TestOrderKeepsItsConnection(t *testing.T) {
	t.Parallel()
	d := waiting{begun: make(chan struct{}), released: make(chan struct{})}
	path, _ := listening(t, d)
	ordered := make(chan error)
	go func() { _, err := ask(t.Context(), path, http.MethodPost, "/sync"); ordered <- err }()
	<-d.begun
	for range 3 * maxConnections {
		dialled(t, path, "")
	}
	if _, err := AskStatus(t.Context(), path); err != nil {
		t.Error(err)
	}
	close(d.released)
	if err := <-ordered; err != nil {
		t.Error(err)
	}
}

// TestOrdersOfOthers: whom the kernel does not know, and who is neither root nor the daemon's user, orders nothing.
func TestOrdersOfOthers(t *testing.T) {
	t.Parallel()
	one, other := net.Pipe() // its ends have no user
	defer one.Close()
	defer other.Close()
	for name, value := range map[string]any{"no connection": nil, "unknown": &conn{crowd: &crowd{}, uid: uidOf(one)}, "other": &conn{crowd: &crowd{}, uid: 41007}} {
		for _, do := range []string{DoSync, DoAdopt, DoPause, DoResume} {
			w := httptest.NewRecorder()
			ctx := context.WithValue(t.Context(), connKey{}, value)
			serving(failing{err: errors.New("it was asked")}).order(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/"+do+"?for=1h", nil), do)
			if w.Code != http.StatusForbidden {
				t.Errorf("%s, %s: %d %s", name, do, w.Code, w.Body)
			}
		}
	}
}
