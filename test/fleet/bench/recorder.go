package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Kinds of requests.
const (
	kindLogin    = "login"
	kindMetadata = "metadata" // the light read of a poll
	kindData     = "data"     // of the secret itself
	kindOther    = "other"
)

// request is one that came, and what it was answered.
type request struct {
	at     time.Time
	kind   string
	status int
}

// recorder stands before Vault and notes what comes.
type recorder struct {
	address string
	server  *http.Server
	forward *httputil.ReverseProxy
	pool    *http.Transport
	ended   chan struct{}

	mu       sync.Mutex
	requests []request
	conns    int // opened by daemons
}

func newRecorder(target string) (*recorder, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &recorder{address: "http://" + listener.Addr().String(), pool: &http.Transport{MaxIdleConnsPerHost: 100}, ended: make(chan struct{})}
	quiet := log.New(io.Discard, "", 0)
	r.forward = &httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(to) },
		Transport: r.pool,
		ErrorLog:  quiet,
	}
	r.server = &http.Server{Handler: r, ErrorLog: quiet, ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			r.mu.Lock()
			r.conns++
			r.mu.Unlock()
		}
	}}
	go func() { defer close(r.ended); r.server.Serve(listener) }()
	return r, nil
}

// ServeHTTP serves the daemons.
func (r *recorder) ServeHTTP(w http.ResponseWriter, asked *http.Request) {
	noted := request{at: time.Now(), kind: kindOther, status: http.StatusOK}
	for part, kind := range map[string]string{"/login": kindLogin, "/metadata/": kindMetadata, "/data/": kindData} {
		if strings.Contains(asked.URL.Path, part) {
			noted.kind = kind
		}
	}
	r.forward.ServeHTTP(&statusWriter{w, &noted.status}, asked)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, noted)
}

type statusWriter struct {
	http.ResponseWriter
	status *int
}

func (w *statusWriter) WriteHeader(status int) {
	*w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// between returns what came from one time on and before another.
func (r *recorder) between(from, to time.Time) (some []request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.requests {
		if !q.at.Before(from) && q.at.Before(to) {
			some = append(some, q)
		}
	}
	return some
}

func (r *recorder) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns
}

func (r *recorder) close() {
	r.server.Close()
	<-r.ended
	r.pool.CloseIdleConnections()
}

// peak is the largest number of requests in bins of a width, the first of which begins at from.
func peak(requests []request, from time.Time, width time.Duration) (most int) {
	bins := map[int]int{}
	for _, q := range requests {
		bin := int(q.at.Sub(from) / width)
		bins[bin]++
		most = max(most, bins[bin])
	}
	return most
}

func count(requests []request, fits func(request) bool) (n int) {
	for _, q := range requests {
		if fits(q) {
			n++
		}
	}
	return n
}

func of(kind string) func(request) bool { return func(q request) bool { return q.kind == kind } }

func sealed(q request) bool { return q.status == http.StatusServiceUnavailable }

func refused(q request) bool { return q.status >= 400 && !sealed(q) }
