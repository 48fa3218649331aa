// Package vaulttest starts a real Vault for tests, the demo and benchmarks: the server's own code from test/vault, with
// its storage in memory. It is built on first use, which takes about five minutes; nothing of it is linked in here.
//
// Where VAULT_ADDR and VAULT_TOKEN are set, that Vault or OpenBao is used instead. Everything is then made under names
// of its own and removed at the end; the token needs to be allowed that.
package vaulttest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a Vault with a KV version 2 mount and an AppRole mount of its own. Its methods may be called concurrently;
// the Must methods end the test, and so belong to the test's goroutine.
type Server struct {
	Address   string
	Token     string // may do everything that is needed here; of an own Vault, the root token
	UnsealKey string // hexadecimal; empty for an external Vault, and for one that is shared
	External  bool   // given by VAULT_ADDR: it cannot be sealed
	Mount     string // KV version 2
	AuthMount string // AppRole, below auth/

	t       testing.TB // nil after Launch
	client  *http.Client
	process *process // nil for an external Vault, and for one that is shared

	mu       sync.Mutex
	policies []string          // made, to remove from an external or shared Vault
	mounts   []string          // likewise
	logins   []string          // mounts of logins other than AuthMount; likewise
	roles    map[string]string // role id → name of the role and of its policy
}

// hangs bounds a wait for a server. It is for one that hangs, not for a slow one.
const hangs = time.Minute

// Start starts a Vault that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t, Launch)
}

// StartEvents starts a Vault that pushes events: an older one, and never an external one.
func StartEvents(t testing.TB) *Server {
	t.Helper()
	return start(t, LaunchEvents)
}

func start(t testing.TB, launch func(context.Context, io.Writer) (*Server, error)) *Server {
	t.Helper()
	s, err := launch(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	s.t = t
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// StartTLS is Start with a Vault that serves HTTPS itself, with a certificate of the authority for 127.0.0.1, and asks
// clients for theirs. An external Vault is not used, as its certificates are its own.
func StartTLS(t testing.TB, authority *Authority) *Server {
	t.Helper()
	_, certFile, keyFile := authority.MustIssue(t, "127.0.0.1")
	return start(t, func(ctx context.Context, progress io.Writer) (*Server, error) {
		s := newServer()
		s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool}}
		return s.launch(ctx, current, progress, "-tls-cert", certFile, "-tls-key", keyFile)
	})
}

// Launch starts a Vault for a program, which must call Close. ctx bounds building and starting only. progress hears of
// a build, nothing else. A program that is killed leaves no Vault behind.
func Launch(ctx context.Context, progress io.Writer) (*Server, error) {
	if !external() {
		return LaunchBuilt(ctx, progress)
	}
	s := newServer()
	s.Address, s.Token, s.External = strings.TrimRight(os.Getenv("VAULT_ADDR"), "/"), os.Getenv("VAULT_TOKEN"), true
	return s.mounted(ctx)
}

// LaunchBuilt is Launch that never uses an external Vault.
func LaunchBuilt(ctx context.Context, progress io.Writer) (*Server, error) {
	return newServer().launch(ctx, current, progress)
}

// LaunchEvents is Launch of the Vault that StartEvents starts.
func LaunchEvents(ctx context.Context, progress io.Writer) (*Server, error) {
	return newServer().launch(ctx, pushing, progress)
}

// launch starts a Vault of our own, with more options of its program.
func (s *Server) launch(ctx context.Context, module string, progress io.Writer, options ...string) (*Server, error) {
	binary, err := build(ctx, module, progress)
	if err != nil {
		return nil, fmt.Errorf("build test/%s: %w", module, err)
	}
	var told ready
	if s.process, told, err = startProcess(ctx, exec.Command(binary, append(options, "-until-eof")...)); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	s.Address, s.Token, s.UnsealKey = told.Address, told.RootToken, told.UnsealKey
	return s.mounted(ctx)
}

func newServer() *Server {
	unique := strings.ToLower(rand.Text()[:10])
	return &Server{
		Mount:     "kv-" + unique,
		AuthMount: "approle-" + unique,
		roles:     map[string]string{},
		client:    &http.Client{Transport: &http.Transport{}, Timeout: hangs},
	}
}

func (s *Server) mounted(ctx context.Context) (*Server, error) {
	if err := s.mount(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// external reports whether a Vault was named to be used instead of an own one.
func external() bool { return os.Getenv("VAULT_ADDR") != "" && os.Getenv("VAULT_TOKEN") != "" }

// Close ends the Vault, or removes from an external or shared one what was made there. A second call does nothing.
func (s *Server) Close() error {
	defer s.client.CloseIdleConnections()
	if s.process != nil {
		return s.process.stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	defer cancel()
	var failed []error
	remove := func(path string) { failed = append(failed, s.Call(ctx, http.MethodDelete, path, nil, nil)) }
	remove("sys/mounts/" + s.Mount)
	remove("sys/auth/" + s.AuthMount)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, mount := range s.mounts {
		remove("sys/mounts/" + mount)
	}
	for _, mount := range s.logins {
		remove("sys/auth/" + mount)
	}
	s.mounts, s.logins = nil, nil
	for _, policy := range s.policies {
		remove("sys/policies/acl/" + policy)
	}
	s.policies = nil
	return errors.Join(failed...)
}

func (s *Server) mount(ctx context.Context) error {
	kv := map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}
	if err := s.Call(ctx, http.MethodPost, "sys/mounts/"+s.Mount, kv, nil); err != nil {
		return err
	}
	if err := s.Call(ctx, http.MethodPost, "sys/auth/"+s.AuthMount, map[string]any{"type": "approle"}, nil); err != nil {
		return err
	}
	// A KV version 2 mount answers 400 until its upgrade, made in the background, is through.
	for {
		err := s.Call(ctx, http.MethodPost, s.Mount+"/config", map[string]any{}, nil)
		if status, ok := errors.AsType[*StatusError](err); !ok || status.Status != http.StatusBadRequest {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// StatusError is an answer of Vault other than success.
type StatusError struct {
	Method, Path string
	Status       int
	Body         string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("vault: %s %s: %d %s", e.Method, e.Path, e.Status, strings.TrimSpace(e.Body))
}

// Call makes one request with the server's own token: path is without /v1/, body and into are JSON and may be nil.
func (s *Server) Call(ctx context.Context, method, path string, body, into any) error {
	return s.call(ctx, s.Token, method, path, body, into)
}

func (s *Server) call(ctx context.Context, token, method, path string, body, into any) error {
	return s.callWith(ctx, nil, token, method, path, body, into)
}

func (s *Server) callWith(ctx context.Context, header http.Header, token, method, path string, body, into any) error {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, s.Address+"/v1/"+path, &content)
	if err != nil {
		return err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("X-Vault-Token", token)
	request.Header.Set("X-Vault-Request", "true")
	if namespace := os.Getenv("VAULT_NAMESPACE"); s.External && namespace != "" {
		request.Header.Set("X-Vault-Namespace", namespace)
	}
	// Reads make no token, and some come while tokens are listed: a cluster's dialer asks which node leads.
	if method != "LIST" && method != http.MethodGet {
		lock := making(s.Address)
		lock.RLock()
		defer lock.RUnlock()
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return &StatusError{Method: method, Path: path, Status: response.StatusCode, Body: string(answer)}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// process is a running server.
type process struct {
	command *exec.Cmd
	stdin   io.Closer     // its end asks the server to end
	stderr  *bytes.Buffer // to be read after done only
	done    chan struct{}
	err     error // of Wait; to be read after done only
	once    sync.Once
	stopped error
}

// ready is what a server says of itself when it listens.
type ready struct {
	Address   string `json:"address"`
	RootToken string `json:"root_token"`
	UnsealKey string `json:"unseal_key"`
}

// startProcess runs a server and returns what it says. The pipe to its standard input closes with this process, however
// that ends, and ends the server.
func startProcess(ctx context.Context, command *exec.Cmd) (p *process, told ready, err error) {
	p = &process{command: command, stderr: &bytes.Buffer{}, done: make(chan struct{})}
	p.command.Stderr = p.stderr
	if p.stdin, err = p.command.StdinPipe(); err != nil {
		return nil, told, err
	}
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		return nil, told, err
	}
	if err := p.command.Start(); err != nil {
		return nil, told, err
	}
	first := make(chan []byte, 1)
	go func() {
		defer close(p.done)
		reader := bufio.NewReader(stdout)
		line, _ := reader.ReadBytes('\n') // an early end shows as a line that is not JSON
		first <- line
		io.Copy(io.Discard, reader)
		p.err = p.command.Wait()
	}()
	var line []byte
	select {
	case line = <-first:
	case <-ctx.Done():
		return nil, told, errors.Join(ctx.Err(), p.stop())
	}
	if err := json.Unmarshal(line, &told); err != nil {
		return nil, told, errors.Join(fmt.Errorf("it does not say where it listens"), p.stop(), errors.New(p.stderr.String()))
	}
	return p, told, nil
}

func (p *process) stop() error {
	p.once.Do(func() {
		p.stdin.Close()
		select {
		case <-p.done:
		case <-time.After(hangs):
			p.command.Process.Kill()
			<-p.done
		}
		if p.err != nil {
			p.stopped = fmt.Errorf("test vault: %w: %s", p.err, p.stderr)
		}
	})
	return p.stopped
}
