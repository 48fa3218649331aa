// Package control is the daemon's control socket: the server, its client, and the status document that both speak of.
//
// The socket speaks HTTP: GET /status answers the status, POST /sync does a pass first. Who may open the socket may ask; that is
// the daemon's user and root.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"campaign-credsync/sync"
)

// Daemon is what answers. Its methods may be called concurrently.
type Daemon interface {
	// Ping returns nil when the daemon is alive. One that hangs does not return before ctx ends.
	Ping(ctx context.Context) error
	// Status is what is known now.
	Status() Status
	// Sync does a pass over the named instances (none: all) and returns the status after it, or sync.ErrEnded where the daemon ends,
	// or is replaced after a reload.
	Sync(ctx context.Context, instances ...string) (Status, error)
}

const (
	// loopTimeout is how long a daemon may take to answer a Ping before its status counts as old.
	loopTimeout = 2 * time.Second
	// idleLimit is how long a connection may say nothing, answerLimit how long it may take its answer.
	idleLimit   = 5 * time.Second
	answerLimit = 10 * time.Second
	// replaceCheck is the time between two looks for a daemon that replaces one that has ended.
	replaceCheck = 10 * time.Millisecond
	// openAgain is the time between two tries to open the socket.
	openAgain = time.Second
	// maxConnections are open at a time, as descriptors are for the work; more wait in the kernel's queue. At most maxPasses of
	// them wait for a pass, so that there is always one for the status.
	maxConnections = 16
	maxPasses      = 8
)

// Server answers at the control socket.
type Server struct {
	path     string
	log      *slog.Logger
	listener net.Listener // nil: there is no room for the socket
	server   *http.Server
	passes   chan struct{} // one slot for each request that waits for a pass
	closing  chan struct{}
	ended    chan struct{}
	current  atomic.Pointer[Daemon]
}

// Listen opens the socket; who asks there waits for the first Serve. One that a killed daemon left is replaced. Where there is no room
// for it (a full /run), that is logged and tried again later: a daemon that nobody can ask still guards the credential.
func Listen(path string, log *slog.Logger) (*Server, error) {
	listener, err := openSocket(path)
	if errors.Is(err, unix.ENOSPC) {
		log.Error("nobody can ask this daemon for its status until there is room for its control socket; make room", "reason", err)
	} else if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	s := &Server{
		path: path, log: log, listener: listener, passes: make(chan struct{}, maxPasses),
		closing: make(chan struct{}), ended: make(chan struct{}),
		server: &http.Server{
			Handler: mux, ReadHeaderTimeout: idleLimit, IdleTimeout: idleLimit,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
	}
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("POST /sync", s.sync)
	return s, nil
}

// Serve has d answer from now on.
func (s *Server) Serve(d Daemon) {
	if s.current.Swap(&d) == nil {
		go s.run()
	}
}

// run serves until Close. After most errors of accept, such as a lack of memory, net/http closes the listener; run opens another.
func (s *Server) run() {
	defer close(s.ended)
	for {
		if s.listener != nil {
			err := s.server.Serve(netutil.LimitListener(s.listener, maxConnections))
			if errors.Is(err, http.ErrServerClosed) {
				return
			}
			s.log.Warn("control socket closed after an error, opening it again", "reason", err)
		}
		select {
		case <-s.closing:
			return
		case <-time.After(openAgain):
		}
		var err error
		if s.listener, err = openSocket(s.path); err == nil {
			s.log.Info("the control socket is open")
		}
	}
}

// Close ends every connection, and removes the socket. There was a Serve before.
func (s *Server) Close() {
	close(s.closing)
	s.server.Close()
	<-s.ended
}

// status answers what is known now. If the daemon hangs, that may no longer be true, so the answer is an error. While it stops, or is
// replaced after a reload, the answer is the last that is known.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	daemon := *s.current.Load()
	ctx, cancel := context.WithTimeout(r.Context(), loopTimeout)
	defer cancel()
	if err := daemon.Ping(ctx); err != nil && ctx.Err() != nil {
		refuse(w, fmt.Sprintf("the daemon hangs: it has done nothing for %v", loopTimeout))
		return
	}
	answer(w, daemon.Status())
}

func (s *Server) sync(w http.ResponseWriter, r *http.Request) {
	select {
	case s.passes <- struct{}{}:
		defer func() { <-s.passes }()
	default:
		refuse(w, fmt.Sprintf("%d others wait for a pass already; try again later", maxPasses))
		return
	}
	daemon, instances := s.current.Load(), r.URL.Query()["instance"]
	status, err := (*daemon).Sync(r.Context(), instances...)
	for began := time.Now(); errors.Is(err, sync.ErrEnded) && r.Context().Err() == nil && time.Since(began) < loopTimeout; time.Sleep(replaceCheck) {
		if next := s.current.Load(); next != daemon { // a reload has replaced the one that was asked
			daemon = next
			status, err = (*daemon).Sync(r.Context(), instances...)
		}
	}
	if err != nil {
		refuse(w, err.Error())
		return
	}
	answer(w, status)
}

func refuse(w http.ResponseWriter, reason string) {
	http.Error(w, reason, http.StatusServiceUnavailable)
}

func answer(w http.ResponseWriter, s Status) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerLimit)) // our connections can that
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s) // fails only when the asker has gone
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
// "connection refused" says that nobody does. One whose queue is full belongs to a daemon that hangs.
func removeDeadSocket(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return nil // whatever is wrong, to open it tells
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("control_socket %s is there and no socket: remove it, or set control_socket to another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("control_socket %s is in use by another process", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("control_socket %s may be in use by another process; if it is not, remove it: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove old control socket: %w", err)
	}
	return nil
}
