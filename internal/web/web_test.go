package web_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/control"
	"campaign-credsync/internal/metrics"
	"campaign-credsync/internal/web"
	"campaign-credsync/sync"
	"campaign-credsync/sync/event"
)

// patience bounds every wait; it is for what hangs.
const patience = time.Minute

type served struct {
	address string
	client  *http.Client
}

// serve answers at a socket until the end of the test.
func serve(t *testing.T, status func() control.Status, drift func(int) ([]event.Event, error), ping func(context.Context) error) served {
	t.Helper()
	dir, err := os.MkdirTemp("", "web-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "http.sock")
	if ping == nil {
		ping = func(context.Context) error { return nil }
	}
	server, err := web.Listen("unix:"+path, web.Config{
		Ping: ping, Status: status, Drift: drift,
		Metrics: metrics.New("1", "c", "go").Handler(status), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return served{path, &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func withStatus(s control.Status) func() control.Status { return func() control.Status { return s } }

func noDrift(int) ([]event.Event, error) { return nil, nil }

func (s served) get(t *testing.T, path string) (int, string, http.Header) {
	t.Helper()
	return s.do(t, http.MethodGet, path)
}

func (s served) do(t *testing.T, method, path string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://daemon"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer.StatusCode, string(body), answer.Header
}

// Who asks may read what is there and change nothing; what is not there is not looked for anywhere else.
func TestMethodsAndPaths(t *testing.T) {
	s := serve(t, withStatus(troubled()), noDrift, nil)
	for _, path := range []string{"/", "/style.css", "/metrics", "/healthz"} {
		if status, _, head := s.get(t, path); status != 200 || head.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("GET %s: %d %v", path, status, head)
		}
		if status, body, _ := s.do(t, http.MethodHead, path); status != 200 || body != "" {
			t.Errorf("HEAD %s: %d %q", path, status, body)
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"} {
			if status, _, _ := s.do(t, method, path); status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, status)
			}
		}
	}
	for path, want := range map[string]int{
		"/../../etc/passwd": 307, "/metrics/../style.css": 307, "/%2e%2e/%2e%2e/etc/passwd": 404, "/..%2fetc%2fpasswd": 404, "/sync": 404, "/status": 404,
		"//": 307, "/page.html": 404,
	} {
		status, body, head := s.get(t, path)
		if status != want || strings.Contains(body, "root:") || strings.Contains(head.Get("Location"), "..") {
			t.Errorf("%s: %d %s %s", path, status, head.Get("Location"), body)
		}
	}
}

func TestReadiness(t *testing.T) {
	for _, c := range []struct {
		in    []sync.InstanceStatus
		want  int
		lines string
	}{
		{nil, 503, "the daemon is starting\n"},
		{[]sync.InstanceStatus{{Name: "prod", State: sync.StateInSync}}, 200, "ok\n"},
		{[]sync.InstanceStatus{{Name: "prod", State: sync.StatePending, Reason: "not_checked"}}, 503, "prod: pending (not_checked)\n"},
		{[]sync.InstanceStatus{{Name: "prod", State: sync.StatePending, Reason: "apply_failed"}}, 200, "ok\n"},
		{[]sync.InstanceStatus{{Name: "prod", State: sync.StateHeld, Reason: "first_apply"}, {Name: "b", State: sync.StatePaused, Reason: "paused"}}, 200, "ok\n"},
		{[]sync.InstanceStatus{{Name: "a", State: sync.StateBlocked, Reason: "secret_missing"}, {Name: "b", State: sync.StateInSync},
			{Name: "c", State: sync.StateDrift, Reason: "drift_alert"}, {Name: "d", State: sync.StateDegraded, Reason: "stuck"}}, 503,
			"a: blocked (secret_missing)\nc: drift (drift_alert)\nd: degraded (stuck)\n"},
	} {
		s := serve(t, withStatus(control.Status{Instances: c.in}), noDrift, nil)
		if status, body, _ := s.get(t, "/readyz"); status != c.want || body != c.lines {
			t.Errorf("%+v: %d %q, want %d %q", c.in, status, body, c.want, c.lines)
		}
	}
}

// A loop that hangs does not answer Ping. One that has ended, as at a reload, answers with an error at once.
func TestHealth(t *testing.T) {
	t.Parallel()
	for want, ping := range map[int]func(context.Context) error{
		503: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		200: func(context.Context) error { return sync.ErrEnded },
	} {
		s := serve(t, withStatus(troubled()), noDrift, ping)
		if status, body, _ := s.get(t, "/healthz"); status != want {
			t.Errorf("%d %s, want %d", status, body, want)
		}
	}
}

// Headers without an end are cut off.
func TestEndlessHeaders(t *testing.T) {
	s := serve(t, withStatus(troubled()), noDrift, nil)
	conn, err := net.Dial("unix", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\nHost: daemon\r\n")
	line := "X-Endless: " + strings.Repeat("x", 1000) + "\r\n"
	sent := 0
	for ; sent < 1<<30; sent += len(line) {
		if _, err := io.WriteString(conn, line); err != nil {
			break
		}
	}
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	if sent > 4<<20 || answer != "" && !strings.Contains(answer, "431") {
		t.Errorf("%d bytes were taken, the answer is %q", sent, answer)
	}
	if status, _, _ := s.get(t, "/healthz"); status != 200 {
		t.Errorf("after that: %d", status)
	}
}

// Whoever connects and says nothing, or reads nothing, is cut off after some seconds, and then others are served.
func TestManyConnectionsAndSlowReaders(t *testing.T) {
	status := troubled()
	for i := range 500 {
		in := status.Instances[0]
		in.Name = fmt.Sprintf("instance-%d", i)
		status.Instances = append(status.Instances, in)
	}
	s := serve(t, withStatus(status), drifted, nil)
	before := openFiles(t)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range 64 {
		conn, err := net.DialTimeout("unix", s.address, time.Second)
		if err != nil {
			break // the kernel's queue is full
		}
		conns = append(conns, conn)
		if path := []string{"/", "/metrics", "/readyz", "/style.css", ""}[i%5]; path != "" {
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: daemon\r\n\r\n", path)
		}
	}
	if taken := openFiles(t) - before - len(conns); taken > 40 { // the limit and what the runtime opens
		t.Errorf("the server has %d descriptors for %d connections", taken, len(conns))
	}
	if code, _, _ := s.get(t, "/healthz"); code != 200 {
		t.Errorf("after %d connections: %d", len(conns), code)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// What another process listens at, or what is no socket, is not taken. What a killed daemon left is replaced.
func TestSocketThatIsTaken(t *testing.T) {
	s := serve(t, withStatus(troubled()), noDrift, nil)
	c := web.Config{Logger: slog.New(slog.DiscardHandler)}
	if _, err := web.Listen("unix:"+s.address, c); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("in use: %v", err)
	}
	if status, _, _ := s.get(t, "/healthz"); status != 200 {
		t.Errorf("the first: %d", status)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := web.Listen("unix:"+file, c); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
	dead := s.address + "2"
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	server, err := web.Listen("unix:"+dead, web.Config{Logger: slog.New(slog.DiscardHandler), Metrics: http.NotFoundHandler()})
	if err != nil {
		t.Fatalf("left by a killed daemon: %v", err)
	}
	server.Close()
}
