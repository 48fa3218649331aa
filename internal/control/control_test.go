package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	stdsync "sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/sync"
)

// TestStatusOfAHangingLoop: what was true when it last took a turn is not told.
func TestStatusOfAHangingLoop(t *testing.T) {
	t.Parallel()
	c := serving(hanging{})
	w := httptest.NewRecorder()
	c.status(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/status", nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "the daemon hangs") {
		t.Errorf("answers %d: %s", w.Code, w.Body)
	}
}

// TestSyncThatFails: only the end of a daemon may mean that another replaces it, and is waited for.
func TestSyncThatFails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err   error
		waits bool
	}{{errors.New("no such instance"), false}, {sync.ErrEnded, true}} {
		c := serving(failing{err: test.err})
		synctest.Test(t, func(t *testing.T) {
			w, began := httptest.NewRecorder(), time.Now()
			ctx := context.WithValue(t.Context(), connKey{}, &conn{crowd: &crowd{}, uid: os.Geteuid()})
			c.order(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/sync", nil), DoSync)
			if waits := time.Since(began) >= loopTimeout; waits != test.waits || !strings.Contains(w.Body.String(), test.err.Error()) {
				t.Errorf("%v: waits %v, answers %s", test.err, waits, w.Body)
			}
		})
	}
}

// serving is a Server without a socket.
func serving(d Daemon) *Server {
	s := &Server{passes: make(chan struct{}, 1)}
	s.current.Store(&d)
	return s
}

// failing is a daemon whose passes fail.
type failing struct {
	Daemon
	err error
}

func (d failing) Do(context.Context, Order) (Status, error) { return Status{}, d.err }

// hanging is a daemon whose loop takes no turn.
type hanging struct{ Daemon }

func (hanging) Ping(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
func (hanging) Do(ctx context.Context, _ Order) (Status, error) {
	<-ctx.Done()
	return Status{}, ctx.Err()
}

// TestSyncOfAHangingLoop: it is not waited for without an end.
func TestSyncOfAHangingLoop(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "control.sock")
	s, err := Listen(path, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Serve(hanging{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := AskFor(ctx, path, Order{Do: DoSync}); err == nil || !strings.Contains(err.Error(), "the daemon hangs") {
		t.Errorf("ends with %v", err)
	}
}

// waiting is a daemon whose passes take until released.
type waiting struct {
	Daemon
	begun    chan struct{}
	released chan struct{}
}

func (waiting) Ping(context.Context) error { return nil }
func (waiting) Status() Status {
	return Status{Instances: []sync.InstanceStatus{{Name: "prod", State: sync.StateInSync}}}
}
func (d waiting) Do(ctx context.Context, _ Order) (Status, error) {
	d.begun <- struct{}{}
	select {
	case <-d.released:
		return d.Status(), nil
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
}

// TestStatusWhileManyWaitForAPass: status answers however many wait, and whoever is too many is told so.
func TestStatusWhileManyWaitForAPass(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "control.sock")
	s, err := Listen(path, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := waiting{begun: make(chan struct{}), released: make(chan struct{})}
	s.Serve(d)
	passes := make(chan error)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range maxPasses {
		go func() { _, err := ask(ctx, path, http.MethodPost, "/sync"); passes <- err }()
		<-d.begun
	}
	for range maxConnections {
		if _, err := ask(ctx, path, http.MethodPost, "/sync"); err == nil || !strings.Contains(err.Error(), "others wait already") {
			t.Fatalf("one more: %v", err)
		}
	}
	if status, err := AskStatus(t.Context(), path); err != nil || !status.InSync() {
		t.Errorf("status: %+v, %v", status, err)
	}
	close(d.released)
	for range maxPasses {
		if err := <-passes; err != nil {
			t.Error(err)
		}
	}
}

// TestDaemonDoesNotAnswer: questions to a daemon that is there and stopped end.
func TestDaemonDoesNotAnswer(t *testing.T) {
	t.Parallel()
	path, _ := deafSocket(t, 100)
	for name, question := range map[string]func() error{
		"status": func() error { _, err := AskStatus(t.Context(), path); return err },
		"sync":   func() error { _, err := AskFor(t.Context(), path, Order{Do: DoSync}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := question(); !errors.Is(err, errNoAnswer) {
				t.Errorf("ends with %v", err)
			}
		})
	}
}

// TestControlSocketWithAFullQueue: somebody hangs behind it, so it is not removed.
func TestControlSocketWithAFullQueue(t *testing.T) {
	t.Parallel()
	path, end := deafSocket(t, 0)
	for {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	staysTaken(t, path, "may be in use by another process")
	if _, err := AskStatus(t.Context(), path); !errors.Is(err, errNoAnswer) {
		t.Errorf("status ends with %v", err)
	}

	end() // and now nobody is behind it
	c, err := Listen(path, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.Serve(hanging{})
	defer c.Close()
	staysTaken(t, path, "is in use by another process")
}

// staysTaken is for a socket that somebody listens at: another server is refused, and it stays as it is.
func staysTaken(t *testing.T, path, want string) {
	t.Helper()
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := Listen(path, "", slog.New(slog.DiscardHandler)); err == nil {
		c.Close()
		t.Error("the socket of another daemon is taken")
	} else if !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
		t.Errorf("it is another now: %v", err)
	}
}

// deafSocket is a socket that takes connections and never answers, until its owner ends and leaves it.
func deafSocket(t *testing.T, queue int) (path string, end func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	end = stdsync.OnceFunc(func() { unix.Close(fd) })
	t.Cleanup(end)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, queue)); err != nil {
		t.Fatal(err)
	}
	return path, end
}
