// Package control is the daemon's control socket: the server, its client, and the status document that both speak of.
//
// The socket speaks HTTP: GET /status, /history and /metrics answer what is known; GET /vault asks Vault; POST /sync, /adopt, /pause and
// /resume are orders. The daemon's user and root may do all. Whoever else may open the socket, which are members of control_group, may
// ask what is known.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/sync"
)

// Daemon is what answers. Its methods may be called concurrently.
type Daemon interface {
	// Ping returns nil when the daemon is alive. One that hangs does not return before ctx ends.
	Ping(ctx context.Context) error
	// Status is what is known now.
	Status() Status
	// Do carries out an order and returns the status after it, or sync.ErrEnded where the daemon ends, or is replaced after a reload.
	Do(ctx context.Context, o Order) (Status, error)
	// History has the events of the history, a line of JSON each.
	History() ([]byte, error)
	// Metrics is what Prometheus would be answered.
	Metrics() ([]byte, error)
	// Examine asks Vault, until ctx ends, what the daemon's login may do, and returns its answer as JSON.
	Examine(ctx context.Context) ([]byte, error)
}

// Order is what an operator wants done.
type Order struct {
	Do        string   // one of the Do constants
	Instances []string // none: all
	For       time.Duration
	Reason    string
	ByUID     *int // nil where that is not known
	Again     bool // a daemon that a reload has replaced was given it before
}

// What an operator may want done.
const (
	DoSync   = "sync" // a pass, which a first apply that is held waits for
	DoAdopt  = "adopt"
	DoPause  = "pause" // for For, because of Reason
	DoResume = "resume"
)

const (
	// loopTimeout is how long a daemon may take to answer a Ping before its status counts as old.
	loopTimeout = 2 * time.Second
	// idleLimit is how long a connection may say nothing, answerLimit how long it may take its answer.
	idleLimit   = 5 * time.Second
	answerLimit = 10 * time.Second
	// replaceCheck is the time between two looks for a daemon that replaces one that has ended.
	replaceCheck = 10 * time.Millisecond
	// openAgain is the time between two tries to open the socket, lookInterval that between two looks whether it is still there.
	openAgain    = time.Second
	lookInterval = 10 * time.Second
	// maxConnections ask at a time, and maxPasses wait for an order to be carried out, as descriptors are for the work. See crowd.
	maxConnections = 16
	minTurn        = 20 * time.Millisecond
	maxPasses      = 8
	// examineTime bounds the questions to Vault that one asker causes. There is one at a time.
	examineTime = 3 * time.Second
	maxHeader   = 8 << 10 // bytes
)

// Server answers at the control socket.
type Server struct {
	path     string
	group    string
	log      *slog.Logger
	listener net.Listener // nil: there is no room for the socket
	server   *http.Server
	passes   chan struct{} // one slot for each request that waits for a pass
	examines chan struct{} // one slot for who has Vault asked
	closing  chan struct{}
	ended    chan struct{}
	current  atomic.Pointer[Daemon]
}

// Listen opens the socket; whoever asks there waits for the first Serve. One that a killed daemon left is replaced. Where there is no room
// for it (a full /run), that is logged and tried again later: a daemon that nobody can ask still guards the credential.
// group, if not empty, may ask too.
func Listen(path, group string, log *slog.Logger) (*Server, error) {
	warnOfDirectory(filepath.Dir(path), log)
	listener, err := openSocket(path, group)
	if errors.Is(err, unix.ENOSPC) {
		log.Error("nobody can ask this daemon for its status until there is room for its control socket; make room", "reason", err)
	} else if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	s := &Server{
		path: path, group: group, log: log, listener: listener, passes: make(chan struct{}, maxPasses), examines: make(chan struct{}, 1),
		closing: make(chan struct{}), ended: make(chan struct{}),
		server: &http.Server{
			Handler: bounded(mux), ReadHeaderTimeout: idleLimit, IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader,
			ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				return context.WithValue(ctx, connKey{}, c)
			},
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
	}
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /history", s.text("application/jsonl", Daemon.History))
	mux.HandleFunc("GET /metrics", s.text("text/plain; version=0.0.4", Daemon.Metrics))
	mux.HandleFunc("GET /vault", s.examine)
	for _, do := range []string{DoSync, DoAdopt, DoPause, DoResume} {
		mux.HandleFunc("POST /"+do, func(w http.ResponseWriter, r *http.Request) { s.order(w, r, do) })
	}
	return s, nil
}

// warnOfDirectory tells of a directory in which others may put a socket of their own in the place of ours.
func warnOfDirectory(dir string, log *slog.Logger) {
	info, err := os.Stat(dir)
	if err != nil || info.Mode()&os.ModeSticky != 0 { // to open the socket tells more
		return
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		log.Warn("others may replace the control socket and answer in its place: chmod go-w its directory", "directory", dir, "mode", fmt.Sprintf("%04o", mode))
	}
}

// Serve has d answer from now on.
func (s *Server) Serve(d Daemon) {
	if s.current.Swap(&d) == nil {
		go s.run()
	}
}

// run serves until Close. After most errors of accept, such as a lack of memory, net/http closes the listener; run opens another, as it
// does where the socket was removed.
func (s *Server) run() {
	defer close(s.ended)
	for told := ""; ; {
		if s.listener != nil {
			over := make(chan struct{})
			go s.closeIfRemoved(s.listener, over)
			err := s.server.Serve(s.listener)
			close(over)
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
		if s.listener, err = openSocket(s.path, s.group); err == nil {
			told = ""
			s.log.Info("the control socket is open")
		} else if !errors.Is(err, unix.ENOSPC) && err.Error() != told { // that there is no room, Listen has said
			told = err.Error()
			s.log.Error("nobody can ask this daemon for its status until its control socket can be opened", "reason", err)
		}
	}
}

// closeIfRemoved closes a listener whose socket was removed: nobody could ask there any more. It returns when over is closed.
func (s *Server) closeIfRemoved(listener net.Listener, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(lookInterval):
		}
		if _, err := os.Lstat(s.path); errors.Is(err, fs.ErrNotExist) {
			listener.Close()
			return
		}
	}
}

// Close ends every connection, and removes the socket.
func (s *Server) Close() {
	close(s.closing)
	s.server.Close()
	switch {
	case s.current.Load() != nil:
		<-s.ended
	case s.listener != nil:
		s.listener.Close()
	}
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

// text answers with what the daemon has.
func (s *Server) text(kind string, get func(Daemon) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		text, err := get(*s.current.Load())
		if err != nil {
			refuse(w, err.Error())
			return
		}
		write(w, kind, text)
	}
}

// examine has Vault asked what the daemon may do there, if whoever asks may cause that.
func (s *Server) examine(w http.ResponseWriter, r *http.Request) {
	if _, ok := ordering(w, r); !ok {
		return
	}
	select {
	case s.examines <- struct{}{}:
		defer func() { <-s.examines }()
	default:
		refuse(w, "somebody else has Vault examined; try again later")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), examineTime)
	defer cancel()
	text, err := (*s.current.Load()).Examine(ctx)
	if err != nil {
		refuse(w, err.Error())
		return
	}
	write(w, "application/json", text)
}

// ordering tells who asks, if they are root or the daemon's user. Others are refused.
func ordering(w http.ResponseWriter, r *http.Request) (who *conn, ok bool) {
	who, known := r.Context().Value(connKey{}).(*conn)
	if ok = known && (who.uid == 0 || who.uid == os.Geteuid()); !ok {
		http.Error(w, "orders are for root and the daemon's user, and not for members of control_group", http.StatusForbidden)
	}
	return who, ok
}

// order has an order carried out, if whoever asks may give it.
func (s *Server) order(w http.ResponseWriter, r *http.Request, do string) {
	who, ok := ordering(w, r)
	if !ok {
		return
	}
	select {
	case s.passes <- struct{}{}:
		defer func() { <-s.passes }()
	default:
		refuse(w, fmt.Sprintf("%d others wait already; try again later", maxPasses))
		return
	}
	w.Header().Set("Connection", "close") // it counts no more
	who.leave()
	query := r.URL.Query()
	length, err := time.ParseDuration(query.Get("for"))
	if err != nil && do == DoPause {
		http.Error(w, "for: "+err.Error(), http.StatusBadRequest)
		return
	}
	o := Order{Do: do, Instances: query["instance"], For: length, Reason: query.Get("reason"), ByUID: &who.uid}
	daemon := s.current.Load()
	status, err := (*daemon).Do(r.Context(), o)
	for began := time.Now(); errors.Is(err, sync.ErrEnded) && r.Context().Err() == nil && time.Since(began) < loopTimeout; time.Sleep(replaceCheck) {
		if next := s.current.Load(); next != daemon { // a reload has replaced the one that was asked
			daemon, o.Again = next, true
			status, err = (*daemon).Do(r.Context(), o)
		}
	}
	if err != nil {
		refuse(w, err.Error())
		return
	}
	answer(w, status)
}

// bounded has no asker hold its connection: what is asked has no body, and the answer has to be read in time.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setWriteDeadline(w)
		if r.ContentLength != 0 {
			http.NewResponseController(w).SetReadDeadline(time.Now()) // net/http would wait for the body
			http.Error(w, "a request here has no body", http.StatusRequestEntityTooLarge)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// setWriteDeadline cannot fail for our connections.
func setWriteDeadline(w http.ResponseWriter) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerLimit))
}

func refuse(w http.ResponseWriter, reason string) {
	setWriteDeadline(w)
	http.Error(w, reason, http.StatusServiceUnavailable)
}

func answer(w http.ResponseWriter, s Status) {
	text, _ := json.Marshal(s) // of what can always be encoded
	write(w, "application/json", append(text, '\n'))
}

// write fails only when the asker has gone, or does not read.
func write(w http.ResponseWriter, kind string, text []byte) {
	setWriteDeadline(w)
	w.Header().Set("Content-Type", kind)
	w.Write(text)
}

func openSocket(path, group string) (net.Listener, error) {
	if err := RemoveDeadSocket(path); err != nil {
		return nil, fmt.Errorf("control_socket: %w", err)
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
	if err := admit(path, group); err != nil {
		listener.Close()
		return nil, err
	}
	return &crowd{Listener: listener, left: make(chan struct{}, 1)}, nil
}

// RemoveDeadSocket makes room for a socket. What is no socket stays, and so does one that somebody may listen at: only
// "connection refused" says that nobody does. One whose queue is full belongs to a daemon that hangs.
func RemoveDeadSocket(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return nil // whatever is wrong, to open it tells
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is there and no socket: remove it, or choose another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s is in use by another process; end it, or choose another path", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%s may be in use by another process; if it is not, remove it: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	return nil
}
