package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources/vault"
	"campaign-credsync/test/vaulttest"
)

// counted serves at an address of its own and counts the connections that are opened to it.
type counted struct {
	net.Listener
	address string
	conns   chan struct{}
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.conns <- struct{}{}
	}
	return conn, err
}

func counting(t *testing.T, handler http.Handler) *counted {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{listener, "http://" + listener.Addr().String(), make(chan struct{}, 1000)}
	server := &http.Server{Handler: handler}
	go server.Serve(c)
	t.Cleanup(func() { server.Close() })
	return c
}

// pollTogether polls five paths at once, again and again.
func (l *lab) pollTogether(v *vault.Vault) {
	l.T.Helper()
	errs := make(chan error)
	for range 20 {
		for range 5 {
			kv := l.KV(v)
			go func() {
				_, err := kv.Poll(l.T.Context(), always)
				errs <- err
			}()
		}
		for range 5 {
			if err := <-errs; err != nil {
				l.T.Error(err)
			}
		}
	}
}

// All polls of all paths, the login, and the revocation at the end go over one connection that is kept.
func TestOneConnection(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	front := counting(t, l.Proxy)
	l.Config.Address = front.address
	v := l.Vault()
	l.pollTogether(v)
	if err := v.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(front.conns); n != 1 {
		t.Errorf("%d connections for 100 polls, want 1", n)
	}
}

// A standby redirects each request to the active node: one connection to each of them, kept.
func TestOneConnectionToEachNode(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	active := counting(t, l.Proxy)
	standby := counting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", active.address+r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	l.Config.Address = standby.address
	l.pollTogether(l.Vault())
	if n, m := len(standby.conns), len(active.conns); n != 1 || m != 1 {
		t.Errorf("%d connections to the standby and %d to the active node, want 1 each", n, m)
	}
}

// A stop is not held up by polls that hang on the only connection, nor by Vault's wish to be left alone.
func TestCloseBesideHangingPolls(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprintf("left alone %v", alone), func(t *testing.T) {
			l := newLab(t)
			l.Server.MustWrite(path, oauth())
			v := l.Vault()
			kv := l.KV(v)
			l.MustPoll(kv, never)
			if alone {
				l.Proxy.Serve(path, asks(429, "300"))
				l.MustFail(kv, "Retry-After")
				l.Proxy.Forward()
			} else {
				l.Proxy.Requests()
				l.Proxy.Serve(path, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
				running, stop := context.WithCancel(t.Context())
				errs := make(chan error)
				for range 3 {
					kv := l.KV(v)
					go func() { _, err := kv.Poll(running, never); errs <- err }()
				}
				if err := l.Proxy.Await(t.Context(), 1, func(vaulttest.Request) bool { return true }); err != nil {
					t.Fatal(err)
				}
				stop()
				for range 3 {
					if err := <-errs; !errors.Is(err, context.Canceled) {
						t.Errorf("a poll ended with %v", err)
					}
				}
			}
			if err := v.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if n := l.Server.MustRoleTokens(l.RoleID); n != 0 {
				t.Errorf("%d tokens are left", n)
			}
		})
	}
}

// A Vault that is slow and has many paths to answer, one after the other on one connection, is no Vault that does not answer, also
// behind a standby that redirects each request.
func TestSlowVaultWithManyPaths(t *testing.T) {
	for _, redirected := range []bool{false, true} {
		t.Run(fmt.Sprintf("redirected %v", redirected), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.Server.MustWrite(path, oauth())
			l.Proxy.Serve("/metadata/", func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(400 * time.Millisecond)
				l.Proxy.Pass(w, r)
			})
			if redirected {
				standby := counting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Location", l.Proxy.Address+r.URL.RequestURI())
					w.WriteHeader(http.StatusTemporaryRedirect)
				}))
				l.Config.Address = standby.address
			}
			for _, err := range l.PollEach(l.Vault(), 60) {
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A Vault that does not answer at all is found by all paths at the same time, and not by one after the other.
func TestSilentVaultWithManyPaths(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	l.MustPoll(l.KV(v), never)
	l.Proxy.Serve("/metadata/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, err := range l.PollEach(v, 40) {
		if err == nil || !strings.Contains(err.Error(), "no answer in time") {
			t.Errorf("a poll ended with %v", err)
		}
	}
}
