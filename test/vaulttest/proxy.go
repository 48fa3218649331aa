package vaulttest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Request is one request that reached a Proxy.
type Request struct {
	Method    string
	Path      string // with /v1/
	Namespace string // header X-Vault-Namespace
	Time      time.Time
}

// Login reports whether it is a login, whatever the method.
func (r Request) Login() bool { return isLogin(r.Path) }

func isLogin(path string) bool {
	return strings.HasPrefix(path, "/v1/auth/") && strings.HasSuffix(path, "/login")
}

// DataRead reports whether it reads a secret itself.
func (r Request) DataRead() bool {
	return r.Method == http.MethodGet && strings.Contains(r.Path, "/data/") && !strings.Contains(r.Path, "/metadata/")
}

// Proxy stands before a Vault at an address of its own: it records requests, passes WebSockets on, and can be cut off, hang, or answer by
// itself. Its methods may be called concurrently.
type Proxy struct {
	Address string // of the proxy: http://127.0.0.1:port, or https://

	target  string // address of the Vault
	host    string // to listen on again
	place   int    // a socket that keeps the port from others while nobody listens; 0: none yet
	tls     *tls.Config
	forward *httputil.ReverseProxy
	pool    *http.Transport

	serving sync.WaitGroup

	mu       sync.Mutex
	server   *http.Server // nil while down
	requests []Request
	taken    []net.Conn    // by WebSockets, which the server does not close
	hang     chan struct{} // closed to let go; nil: not hanging
	hosts    []string      // host:port to connect to, in turn; empty: target
	turn     int
	answers  []answer
}

type answer struct {
	part  string
	serve http.HandlerFunc
}

// Proxy starts a proxy that ends with the test.
func (s *Server) Proxy(t testing.TB) *Proxy {
	t.Helper()
	return s.ProxyTLS(t, nil)
}

// ProxyTLS is Proxy that speaks TLS with its clients.
func (s *Server) ProxyTLS(t testing.TB, settings *tls.Config) *Proxy {
	t.Helper()
	p, err := NewProxy(s.Address, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// NewProxy starts a proxy before the Vault at target. It speaks TLS when settings are given. The caller must Close it.
func NewProxy(target string, settings *tls.Config) (*Proxy, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, host: "127.0.0.1:0", tls: settings}
	p.pool = &http.Transport{DialContext: p.dial}
	p.forward = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: p.pool,
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	if err := p.Up(); err != nil {
		return nil, err
	}
	scheme := "http://"
	if settings != nil {
		scheme = "https://"
	}
	p.Address = scheme + p.host
	return p, nil
}

// ServeHTTP serves the proxy's clients.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests = append(p.requests, Request{
		Method: r.Method, Path: r.URL.Path, Namespace: r.Header.Get("X-Vault-Namespace"), Time: time.Now(),
	})
	hang := p.hang
	var own *answer
	for i := range p.answers {
		if strings.Contains(r.URL.Path, p.answers[i].part) {
			own = &p.answers[i]
		}
	}
	p.mu.Unlock()
	if hang != nil {
		// A client that goes away is noticed only once its request was read to the end.
		io.Copy(io.Discard, r.Body)
		select {
		case <-hang:
		case <-r.Context().Done():
			return
		}
	}
	if own != nil {
		own.serve(w, r)
		return
	}
	p.Pass(w, r)
}

// Point has the proxy connect to these (host:port) in turn from now on, as a load balancer does: one that refuses is
// passed over. A connection stays where it is until it breaks, or until Point is called again and no request is on it.
// Without hosts it is the one that the proxy was made for.
func (p *Proxy) Point(hosts ...string) {
	p.mu.Lock()
	p.hosts = hosts
	p.mu.Unlock()
	p.pool.CloseIdleConnections()
}

func (p *Proxy) dial(ctx context.Context, network, target string) (net.Conn, error) {
	p.mu.Lock()
	hosts, from := p.hosts, p.turn
	p.turn++
	p.mu.Unlock()
	if len(hosts) == 0 {
		hosts = []string{target}
	}
	var failed error
	for i := range hosts {
		c, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, network, hosts[(from+i)%len(hosts)])
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// Down closes the listener and every connection: clients are refused, as when Vault is not running.
func (p *Proxy) Down() {
	p.mu.Lock()
	server, taken := p.server, p.taken
	p.server, p.taken = nil, nil
	p.mu.Unlock()
	if server != nil {
		server.Close()
	}
	for _, conn := range taken {
		conn.Close()
	}
	p.serving.Wait()
}

// Up listens again, at the same address.
func (p *Proxy) Up() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return nil
	}
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if failed := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}); failed != nil {
			return failed
		}
		return err
	}}
	listener, err := shared.Listen(context.Background(), "tcp", p.host)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	p.host = listener.Addr().String()
	if p.place == 0 {
		if p.place, err = keepPlace(listener.Addr().(*net.TCPAddr)); err != nil {
			listener.Close()
			return fmt.Errorf("proxy: keep the port: %w", err)
		}
	}
	if p.tls != nil {
		listener = tls.NewListener(listener, p.tls)
	}
	server := &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0), ConnState: p.connState}
	p.server = server
	p.serving.Go(func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			panic(err) // a closed listener is the only way out
		}
	})
	return nil
}

func (p *Proxy) connState(conn net.Conn, state http.ConnState) {
	if state == http.StateHijacked {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.taken = append(p.taken, conn)
	}
}

// keepPlace binds a socket to where another listens, and does not listen: whoever connects while the other is closed is
// refused, and nobody else gets that port.
func keepPlace(at *net.TCPAddr) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())})
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// Hang accepts requests and answers none, as a Vault that is stopped or out of memory. The function returned, or
// Close, lets those that wait and all later ones through.
func (p *Proxy) Hang() (letGo func()) {
	hang := make(chan struct{})
	p.mu.Lock()
	p.hang = hang
	p.mu.Unlock()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.hang == hang {
			p.hang = nil
			close(hang)
		}
	}
}

// Answer answers requests whose path contains part with status and Vault's errors, in place of Vault; of several that
// fit, the last counts.
func (p *Proxy) Answer(part string, status int, vaultErrors ...string) {
	body, err := json.Marshal(map[string][]string{"errors": append([]string{}, vaultErrors...)}) // a list, also if it is empty
	if err != nil {
		panic(err) // strings always marshal
	}
	p.AnswerBody(part, status, string(body))
}

// AnswerBody is Answer with a body of the caller's.
func (p *Proxy) AnswerBody(part string, status int, body string) {
	p.Serve(part, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// Serve is Answer by a function of the caller's, which may be called concurrently. It may hand a request on with Pass.
func (p *Proxy) Serve(part string, serve http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = append(p.answers, answer{part, serve})
}

// Pass hands a request on to Vault.
func (p *Proxy) Pass(w http.ResponseWriter, r *http.Request) {
	if isLogin(r.URL.Path) {
		lock := making(p.target)
		lock.RLock()
		defer lock.RUnlock()
	}
	p.forward.ServeHTTP(w, r)
}

// Forward ends every Answer.
func (p *Proxy) Forward() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = nil
}

// Requests returns what came since the last call.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests := p.requests
	p.requests = nil
	return requests
}

// Count counts the requests that fit.
func Count(requests []Request, fits func(Request) bool) (n int) {
	for _, r := range requests {
		if fits(r) {
			n++
		}
	}
	return n
}

// Patience ends a wait for what never comes. The daemon itself may wait for a minute, by its backoff, and the machine may be slow.
const Patience = 5 * time.Minute

// Await waits until at least n requests that fit have come since the last call of Requests.
func (p *Proxy) Await(ctx context.Context, n int, fits func(Request) bool) error {
	for limit := time.Now().Add(Patience); ; {
		came, last := 0, Request{}
		p.mu.Lock()
		all := len(p.requests)
		for _, r := range p.requests {
			if last = r; fits(r) {
				came++
			}
		}
		p.mu.Unlock()
		if came >= n {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%d of %d awaited requests have come in %v, and %d in all, the last %s %s", came, n, Patience, all, last.Method, last.Path)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Close ends the proxy.
func (p *Proxy) Close() {
	p.mu.Lock()
	hang := p.hang
	p.hang = nil
	p.mu.Unlock()
	if hang != nil {
		close(hang)
	}
	p.Down()
	p.mu.Lock()
	if p.place != 0 {
		unix.Close(p.place)
		p.place = 0
	}
	p.mu.Unlock()
	p.pool.CloseIdleConnections()
}
