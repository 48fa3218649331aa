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
	"os"
	"slices"
	"strings"
	"time"

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
	Drift   func() []event.Event // of the last days, the oldest first
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
		return nil, fmt.Errorf("listen: %w", err)
	}
	slots := make(chan struct{}, maxConnections)
	s := &Server{closing: make(chan struct{}), ended: make(chan struct{})}
	s.server = &http.Server{
		Handler: handler(c), ReadHeaderTimeout: idleLimit, ReadTimeout: idleLimit, IdleTimeout: idleLimit, WriteTimeout: answerLimit,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) { // holds up the next accept
			switch state {
			case http.StateNew:
				slots <- struct{}{}
			case http.StateClosed:
				<-slots
			}
		},
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
			if err = s.server.Serve(listener); errors.Is(err, http.ErrServerClosed) {
				return
			}
			log.Warn("metrics and page were closed by an error, opening them again", "reason", err)
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
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		os.Remove(path) // a daemon that was killed left it; if not, Listen tells
	}
	return net.Listen("unix", path)
}

func handler(c Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { servePage(w, c) })
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Write(style)
	})
	mux.Handle("GET /metrics", c.Metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
		defer cancel()
		if c.Ping(ctx) != nil && ctx.Err() != nil {
			say(w, http.StatusServiceUnavailable, fmt.Sprintf("the daemon hangs: it has done nothing for %v", pingTimeout))
			return
		}
		say(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if waits := notReady(c.Status().Instances); len(waits) > 0 {
			say(w, http.StatusServiceUnavailable, strings.Join(waits, "\n"))
			return
		}
		say(w, http.StatusOK, "ok")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
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
