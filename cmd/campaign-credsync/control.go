package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/sources"
	"campaign-credsync/sync"
)

// The control socket speaks HTTP: GET /status answers the status document, POST /sync does a pass first. Who may open
// the socket may ask; that is the daemon's user and root.
type control struct {
	server *http.Server
	ended  chan struct{}
	// asked is what answers; SIGHUP puts another in its place.
	asked atomic.Pointer[answering]
}

type answering struct {
	daemon *sync.Daemon
	vault  *sources.Vault
}

// listenControl opens the socket. One that a killed daemon left is replaced; one that answers is not.
func listenControl(path string, log *slog.Logger) (*control, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("control_socket %s is in use by another process", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("control_socket %s is there and no socket: remove it, or set control_socket to another path", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old control socket: %w", err)
	}
	before := unix.Umask(0o177) // so that the socket is never open to others, not even for an instant
	listener, err := net.Listen("unix", path)
	unix.Umask(before)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w; the directory of control_socket must exist and belong to the daemon's user", err)
	}
	c := &control{ended: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", c.status)
	mux.HandleFunc("POST /sync", c.sync)
	c.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	go func() {
		defer close(c.ended)
		c.server.Serve(lasting{listener}) // ends with close
	}()
	return c, nil
}

// lasting has the server go on after an error of accept, be it a lack of memory, or of room in an epoll. net/http ends at most of
// them, and then nobody could ask until the next start.
type lasting struct{ net.Listener }

func (l lasting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		err = passing{err}
	}
	return conn, err
}

// passing is what net/http takes for an error after which it waits a little and tries again.
type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

func (c *control) close() {
	c.server.Close()
	<-c.ended
}

func (c *control) serve(daemon *sync.Daemon, vault *sources.Vault) {
	c.asked.Store(&answering{daemon, vault})
}

func (c *control) status(w http.ResponseWriter, _ *http.Request) {
	asked := c.asked.Load()
	if asked == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	answer(w, document(asked.daemon.Status(), asked.vault.TokenExpires()))
}

func (c *control) sync(w http.ResponseWriter, r *http.Request) {
	asked := c.asked.Load()
	if asked == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	asked.vault.Soon()
	status, err := asked.daemon.Check(r.Context(), r.URL.Query()["instance"]...)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, document(status, asked.vault.TokenExpires()))
}

func answer(w http.ResponseWriter, d statusDocument) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(d) // fails only when the asker has gone
}

// errNoDaemon says that nobody answers at the control socket.
var errNoDaemon = errors.New("no daemon answers")

// ask sends a request to the daemon behind the socket.
func ask(ctx context.Context, socket, method, path string, query url.Values) (statusDocument, error) {
	var d statusDocument
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path+"?"+query.Encode(), nil)
	if err != nil {
		return d, err
	}
	response, err := client.Do(request)
	if err != nil {
		var system *net.OpError
		if errors.As(err, &system) && system.Op == "dial" {
			return d, fmt.Errorf("%w at control_socket %s: %w", errNoDaemon, socket, system.Err)
		}
		return d, fmt.Errorf("ask the daemon: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return d, fmt.Errorf("read the daemon's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return d, fmt.Errorf("the daemon answers: %s", body)
	}
	if err := json.Unmarshal(body, &d); err != nil {
		return d, fmt.Errorf("understand the daemon's answer: %w", err)
	}
	return d, nil
}
