package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	stdsync "sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/sync"
)

// The control socket speaks HTTP: GET /status answers the status document, POST /sync does a pass first. Who may open
// the socket may ask; that is the daemon's user and root.
type control struct {
	server  *http.Server
	closing chan struct{}
	ended   chan struct{}
	// asked is what answers; SIGHUP puts another in its place.
	asked atomic.Pointer[answering]
}

type answering struct {
	daemon   *sync.Daemon
	assembly *assembly
	replaced chan struct{} // closed when another answers in its place
}

// loopPatience is how long a turn of the loop is waited for before the status counts as old.
const loopPatience = 2 * time.Second

// roomAgain is how often a socket is tried again for which the file system had no room.
const roomAgain = time.Second

// listenControl opens the socket. One that a killed daemon left is replaced. Where there is no room for it (a full /run), that is
// said, and it is opened when there is: nobody can ask until then, but the credential is guarded.
func listenControl(path string, log *slog.Logger) (*control, error) {
	listener, err := openSocket(path)
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		return nil, err
	}
	if err != nil {
		log.Error("nobody can ask this daemon for its status until there is room for its control socket; make room", "reason", err)
	}
	c := &control{closing: make(chan struct{}), ended: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", c.status)
	mux.HandleFunc("POST /sync", c.sync)
	c.server = &http.Server{Handler: mux, ReadHeaderTimeout: idleLimit, IdleTimeout: idleLimit,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	go func() {
		defer close(c.ended)
		for listener == nil {
			select {
			case <-c.closing:
				return
			case <-time.After(roomAgain):
			}
			if listener, err = openSocket(path); err == nil {
				log.Info("the control socket is open")
			}
		}
		c.server.Serve(&lasting{Listener: listener, slots: make(chan struct{}, maxQuestions)}) // ends with close
	}()
	return c, nil
}

func openSocket(path string) (net.Listener, error) {
	if err := removeDeadSocket(path); err != nil {
		return nil, err
	}
	// The socket has the mode of its descriptor, so it is never open to others, not even for an instant.
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmod)
	}}
	listener, err := private.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w; the directory of control_socket must exist and belong to the daemon's user", err)
	}
	return listener, nil
}

// removeDeadSocket makes room for a socket. What is no socket stays, and so does one that somebody may listen at: only
// "connection refused" tells that nobody does. One whose queue is full of questions belongs to a daemon that hangs.
func removeDeadSocket(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return nil // whatever is wrong, to open it tells
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("control_socket %s is there and no socket: remove it, or set control_socket to another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("control_socket %s is in use by another process", path)
	case errors.Is(err, os.ErrNotExist):
		return nil
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("control_socket %s may be in use by another process; if it is not, remove it: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old control socket: %w", err)
	}
	return nil
}

const (
	// maxQuestions are open at a time; more wait in the kernel's queue. Descriptors are for the work.
	maxQuestions = 16
	// idleLimit is how long a connection may say nothing, answerLimit how long it may take its answer.
	idleLimit   = 5 * time.Second
	answerLimit = 10 * time.Second
)

// lasting has the server go on after an error of accept, be it a lack of memory, or of room in an epoll. net/http ends at most of
// them, and then nobody could ask until the next start.
type lasting struct {
	net.Listener
	slots chan struct{} // one for each connection
}

func (l *lasting) Accept() (net.Conn, error) {
	l.slots <- struct{}{} // the server's Close closes all connections, so that this ends
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		if !errors.Is(err, net.ErrClosed) {
			err = passing{err}
		}
		return nil, err
	}
	return &question{Conn: conn, closed: stdsync.OnceFunc(func() { <-l.slots })}, nil
}

// question is a connection that gives its slot free.
type question struct {
	net.Conn
	closed func()
}

func (q *question) Close() error {
	defer q.closed()
	return q.Conn.Close()
}

// passing is what net/http takes for an error after which it waits a little and tries again.
type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

func (c *control) close() {
	close(c.closing)
	c.server.Close()
	<-c.ended
}

func (c *control) serve(daemon *sync.Daemon, a *assembly) {
	if before := c.asked.Swap(&answering{daemon, a, make(chan struct{})}); before != nil {
		close(before.replaced)
	}
}

// status answers what is known now. Of a loop that hangs that is old, and may be no longer true; while the daemon stops, or one
// assembly takes the place of another, it is the last there is.
func (c *control) status(w http.ResponseWriter, r *http.Request) {
	asked := c.asked.Load()
	if asked == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), loopPatience)
	defer cancel()
	if err := asked.daemon.Ping(ctx); err != nil && ctx.Err() != nil {
		http.Error(w, fmt.Sprintf("the daemon hangs: it has done nothing for %v", loopPatience), http.StatusServiceUnavailable)
		return
	}
	answer(w, asked.assembly.document(asked.daemon.Status()))
}

func (c *control) sync(w http.ResponseWriter, r *http.Request) {
	asked := c.asked.Load()
	if asked == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	for {
		asked.assembly.soon()
		status, err := asked.daemon.Check(r.Context(), r.URL.Query()["instance"]...)
		if err == nil {
			answer(w, asked.assembly.document(status))
			return
		}
		if !errors.Is(err, sync.ErrEnded) || !asked.another(r.Context()) {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		asked = c.asked.Load()
	}
}

// another waits for what answers after a reload, and reports whether there is such a thing: the daemon may be about to end, too.
func (a *answering) another(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, loopPatience)
	defer cancel()
	select {
	case <-a.replaced:
		return true
	case <-ctx.Done():
		return false
	}
}

func answer(w http.ResponseWriter, d statusDocument) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerLimit)) // our connections can that
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(d) // fails only when the asker has gone
}
