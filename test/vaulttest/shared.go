package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
)

// errShared is for what would change more than a test's own part of a Vault.
var errShared = errors.New("a Vault that other tests use is not sealed: start one of the test's own")

// shared are the Vaults that the tests of this process have in common, by their module.
var shared = struct {
	sync.Mutex
	servers map[string]*Server
}{servers: map[string]*Server{}}

// Shared is Start with a Vault that the tests of a package have in common. Each test has mounts, roles and policies of its own there, which
// end with it. A test that changes what belongs to all, such as the seal or a quota, needs Start. The package's TestMain runs [Sharing].
func Shared(t testing.TB) *Server {
	t.Helper()
	if external() {
		return Start(t)
	}
	return onShared(t, current)
}

// SharedEvents is Shared with the Vault that StartEvents starts.
func SharedEvents(t testing.TB) *Server {
	t.Helper()
	return onShared(t, pushing)
}

// onShared makes a test's own part of the Vault that tests share.
func onShared(t testing.TB, module string) *Server {
	t.Helper()
	return start(t, func(ctx context.Context, progress io.Writer) (*Server, error) {
		server, err := sharedServer(ctx, module, progress)
		if err != nil {
			return nil, err
		}
		s := newServer()
		s.Address, s.Token = server.Address, server.Token
		return s.mounted(ctx)
	})
}

// sharedServer starts the Vault of a module once.
func sharedServer(ctx context.Context, module string, progress io.Writer) (*Server, error) {
	shared.Lock()
	defer shared.Unlock()
	if s := shared.servers[module]; s != nil {
		return s, nil
	}
	s, err := newServer().launch(ctx, module, progress)
	if err == nil {
		shared.servers[module] = s
	}
	return s, err
}

// Sharing is a [testing.M] that ends what Shared and SharedEvents have started.
type Sharing struct{ *testing.M }

// Run runs the tests.
func (s Sharing) Run() (code int) {
	code = s.M.Run()
	shared.Lock()
	defer shared.Unlock()
	for module, server := range shared.servers {
		if err := server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		delete(shared.servers, module)
	}
	return code
}
