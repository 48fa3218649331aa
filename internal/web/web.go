// Package web answers over HTTP what monitoring and people ask: /metrics, /healthz, /readyz, and a page at /.
//
// Whoever can connect may ask, and nothing can be changed here. Nothing that is shown is secret, but names of instances, paths and errors
// are: bind it to where only monitoring comes.
package web

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"campaign-credsync/internal/control"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sync"
	"campaign-credsync/sync/event"
)

const (
	idleLimit   = 5 * time.Second  // for a request's header, and between two requests
	answerLimit = 10 * time.Second // for a slow reader
	maxHeader   = 8 << 10          // bytes
	// maxConnections are open at a time; more wait in the kernel's queue.
	maxConnections = 32
	pingTimeout    = 2 * time.Second
	openAgain      = 5 * time.Second
)

// Config is what the answers are made of. The funcs are called concurrently.
type Config struct {
	Ping    func(context.Context) error // returns nil while the daemon makes progress
	Status  func() control.Status
	Drift   func(most int) ([]event.Event, error) // the newest first
	Metrics http.Handler
	Logger  *slog.Logger
}

// Server answers.
type Server struct {
	server  *http.Server
	closing chan struct{}
	ended   chan struct{}
}

// Listen opens address, host:port or unix:PATH, and answers until Close.
func Listen(address string, c Config) (*Server, error) {
	listener, err := open(address)
	if err != nil {
		return nil, err
	}
	s := &Server{closing: make(chan struct{}), ended: make(chan struct{})}
	s.server = &http.Server{
		Handler: newHandler(c), ReadHeaderTimeout: idleLimit, ReadTimeout: idleLimit, IdleTimeout: idleLimit, WriteTimeout: answerLimit,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
	go s.run(address, listener, c.Logger)
	return s, nil
}

// run serves until Close. After most errors of accept, such as a lack of memory, net/http closes the listener; run opens another.
func (s *Server) run(address string, listener net.Listener, log *slog.Logger) {
	defer close(s.ended)
	var err error
	for {
		if err == nil {
			if err = s.server.Serve(netutil.LimitListener(listener, maxConnections)); errors.Is(err, http.ErrServerClosed) {
				return
			}
			log.Warn("metrics and page closed after an error, opening them again", "reason", err)
		}
		select {
		case <-s.closing:
			return
		case <-time.After(openAgain):
		}
		listener, err = open(address)
	}
}

// Close ends every connection.
func (s *Server) Close() {
	close(s.closing)
	s.server.Close()
	<-s.ended
}

func open(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return net.Listen("tcp", address)
	}
	if err := control.RemoveDeadSocket(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

// handler answers requests.
type handler struct {
	Config
	reading chan struct{} // has room for one who reads the history
}

func newHandler(c Config) http.Handler {
	h := &handler{c, make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", h.servePage)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Write(style)
	})
	mux.Handle("GET /metrics", c.Metrics)
	mux.HandleFunc("GET /healthz", h.serveHealth)
	mux.HandleFunc("GET /readyz", h.serveReadiness)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

func (h *handler) serveHealth(w http.ResponseWriter, r *http.Request) {
	if h.alive(w, r) {
		say(w, http.StatusOK, "ok")
	}
}

// serveReadiness tells what the status says, which may no longer be true if the daemon hangs.
func (h *handler) serveReadiness(w http.ResponseWriter, r *http.Request) {
	if !h.alive(w, r) {
		return
	}
	if waits := notReady(h.Status().Instances); len(waits) > 0 {
		say(w, http.StatusServiceUnavailable, strings.Join(waits, "\n"))
		return
	}
	say(w, http.StatusOK, "ok")
}

// alive reports whether the daemon makes progress. If it does not, that is the answer.
func (h *handler) alive(w http.ResponseWriter, r *http.Request) bool {
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	if h.Ping(ctx) != nil && ctx.Err() != nil {
		say(w, http.StatusServiceUnavailable, fmt.Sprintf("the daemon hangs: it has done nothing for %v", pingTimeout))
		return false
	}
	return true
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// notReady tells which instances were not checked yet, or are in a state that needs a person.
func notReady(instances []sync.InstanceStatus) (lines []string) {
	if len(instances) == 0 {
		return []string{"the daemon is starting"}
	}
	for _, in := range instances {
		bad := slices.Contains([]sync.State{sync.StateBlocked, sync.StateDegraded, sync.StateDrift}, in.State)
		if bad || in.Reason == credential.ReasonNotChecked {
			lines = append(lines, fmt.Sprintf("%s: %s (%s)", in.Name, in.State, in.Reason))
		}
	}
	return lines
}

//go:embed style.css
var style []byte
