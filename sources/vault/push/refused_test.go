package push_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"campaign-credsync/sources/vault/push"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/vaulttest/vaultlab"
)

// A Vault of today without Enterprise has no events, whatever the policy says. That is told once, and is no reason for
// more requests until the operator asks.
func TestVaultWithoutEvents(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]func(*vaulttest.Server, string) string{
		"least policy": (*vaulttest.Server).ReadPolicy, "push policy": (*vaulttest.Server).PushPolicy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := pushLabOn(vaultlab.With(t, policy, time.Hour))
			p.subscribe(path)
			p.logged(toldNotOffered)
			p.Proxy.Requests()
			for range 5 {
				p.tell[path]()
				p.await(path, 1)
			}
			if n := vaulttest.Count(p.Proxy.Requests(), func(r vaulttest.Request) bool { return !strings.Contains(r.Path, "/metadata/") }); n != 0 {
				t.Errorf("%d requests beside polls", n)
			}
			if n := p.told(); n != 1 || strings.Contains(p.Log.String(), "level=WARN") {
				t.Errorf("%d lines at info or above, want one at info:\n%s", n, p.Log)
			}
			p.v.RetryRefused()
			p.tell[path]()
			p.connected(1)
		})
	}
}

func TestVaultWithoutEventsIsAskedAgainLater(t *testing.T) {
	t.Parallel()
	p := pushLabOn(vaultlab.New(t))
	p.tune = append(p.tune, func(c *push.Config) { c.AskAgainIn(20 * time.Millisecond) })
	p.subscribe(path)
	p.connected(5)
	p.stop()
	if n := p.told(); n != 1 {
		t.Errorf("%d lines at info or above for one answer:\n%s", n, p.Log)
	}
}

func TestPolicyThatIsMendedIsFoundWhenAsked(t *testing.T) {
	t.Parallel()
	p := newPushLab(t, (*vaulttest.Server).ReadPolicy)
	p.subscribe(path)
	p.logged(toldNotOffered)
	for _, rule := range p.Server.PushRules(path)[1:] {
		if !strings.Contains(strings.ReplaceAll(p.Log.String(), `\"`, `"`), rule) {
			t.Errorf("the log does not name %s:\n%s", rule, p.Log)
		}
	}
	p.Server.MustSetPolicy(p.RoleID, p.Server.PushPolicy(path))
	p.v.RetryRefused()
	p.tell[path]()
	p.logged(toldConnected)
	p.await(path, 1)
	p.Server.MustWrite(path, oauth())
	p.await(path, 2)
}

// What stands before Vault may do anything to a WebSocket. Polls go on beside it, it is tried a few times, told of once,
// and then left alone.
func TestHostileAnswersToASubscription(t *testing.T) {
	t.Parallel()
	server := vaulttest.Shared(t)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	for name, serve := range map[string]http.HandlerFunc{
		"closed at once": func(w http.ResponseWriter, r *http.Request) {
			if conn, err := websocket.Accept(w, r, nil); err == nil {
				conn.Close(websocket.StatusGoingAway, "p8e-CanaryCanaryCanaryCanaryCanary12\n\x1b[31m")
			}
		},
		"a huge message": func(w http.ResponseWriter, r *http.Request) {
			if conn, err := websocket.Accept(w, r, nil); err == nil {
				conn.Write(r.Context(), websocket.MessageText, make([]byte, 10<<20))
				conn.CloseNow()
			}
		},
		"silence": func(w http.ResponseWriter, r *http.Request) {
			if conn, err := websocket.Accept(w, r, nil); err == nil {
				<-conn.CloseRead(r.Context()).Done()
			}
		},
		"dead connection": func(w http.ResponseWriter, r *http.Request) {
			if conn, err := websocket.Accept(w, r, nil); err == nil {
				defer conn.CloseNow()
				<-over // reads nothing, so no ping is answered
			}
		},
		"garbage after the handshake": taken("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Accept: %ACCEPT%\r\n\r\n", strings.Repeat("\xff\x00garbage", 1000)),
		"a handshake of another": taken("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Accept: AAAA\r\n\r\n"),
		"no HTTP": taken("220 mail.example.com ESMTP\r\n"),
		"cut off": taken("HTTP/1.1 101 Switching Pro"),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/elsewhere", http.StatusFound)
		},
		"a 502": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>bad gateway</html>", http.StatusBadGateway)
		},
		"many a 1xx":  taken(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000)),
		"huge answer": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); w.Write(make([]byte, 10<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := "campaign/" + strings.ReplaceAll(name, " ", "-")
			p := pushLabOn(vaultlab.On(t, server, func(s *vaulttest.Server, _ string) string { return s.PushPolicy(path) }, time.Hour))
			if name == "dead connection" {
				p.tune = append(p.tune, func(c *push.Config) { c.AnswerIn(300 * time.Millisecond) })
			}
			p.Proxy.Serve("/v1/sys/events/", serve)
			p.subscribe(path)
			if name == "silence" { // which is what an idle Vault does
				p.logged(toldConnected)
				p.await(path, 1)
				if n := vaulttest.Count(p.Proxy.Requests(), subscribes); n != 1 {
					t.Errorf("%d connections to one that has nothing to say", n)
				}
				return
			}
			p.logged(toldFailing)
			if n := vaulttest.Count(p.Proxy.Requests(), subscribes); n != 9 {
				t.Errorf("%d tries, want 9", n)
			}
			for range 3 {
				p.tell[path]()
				p.await(path, 1)
			}
			if n := vaulttest.Count(p.Proxy.Requests(), subscribes); n != 0 {
				t.Errorf("%d tries after that", n)
			}
			if n := strings.Count(p.Log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d warnings, want 1:\n%s", n, p.Log)
			}
			p.MustNotShow("the log", p.Log.String())
		})
	}
}

// taken answers with bytes, and %ACCEPT% is what the client wants to see of a WebSocket.
func taken(parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, strings.ReplaceAll(strings.Join(parts, ""), "%ACCEPT%", accept(r.Header.Get("Sec-WebSocket-Key"))))
	}
}

// Messages that are no events, or events of an unknown shape, end nothing.
func TestMessagesThatAreNoEvents(t *testing.T) {
	t.Parallel()
	p := pushLabOn(vaultlab.New(t))
	event := make(chan string)
	p.Proxy.Serve("/v1/sys/events/", func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ctx := conn.CloseRead(r.Context())
		for {
			select {
			case text := <-event:
				conn.Write(ctx, websocket.MessageText, []byte(text))
			case <-ctx.Done():
				return
			}
		}
	})
	p.subscribe(path)
	p.await(path, 1)
	p.Server.MustWrite(path, oauth())
	for _, text := range []string{
		"", "null", "[]", "{", "p8e-CanaryCanaryCanaryCanaryCanary12", `{"data":null}`, `{"data":{"event":{"metadata":[]}}}`,
		`{"data":{"event":{"metadata":{"data_path":7}}}}`, `{"data":{"event":{"metadata":{"data_path":""}}}}`, strings.Repeat("[", 30000),
	} {
		event <- text
	}
	event <- `{"data":{"event":{"metadata":{"data_path":"` + p.Server.Mount + "/data/" + path + `"}}}}`
	p.await(path, 2)
	if n := vaulttest.Count(p.Proxy.Requests(), subscribes); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A listener that accepts and never answers holds up nothing.
func TestSubscriptionIsNeverAnswered(t *testing.T) {
	t.Parallel()
	l := vaultlab.New(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p := pushLabOn(l)
	p.tune = append(p.tune, func(c *push.Config) { c.AnswerIn(300 * time.Millisecond) })
	p.Proxy.Serve("/v1/sys/events/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+listener.Addr().String()+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	})
	p.subscribe(path)
	p.logged(toldFailing)
	p.tell[path]()
	p.await(path, 1)
}

// Events are not subscribed to with such a token: it would end with a poll, and the subscription with it.
func TestNoEventsForAFewUses(t *testing.T) {
	t.Parallel()
	p := pushLabOn(vaultlab.With(t, (*vaulttest.Server).PushPolicy, time.Hour))
	p.Server.MustSetRole(p.RoleID, map[string]any{"token_num_uses": 1})
	p.subscribe(path)
	p.logged("token_num_uses")
	for range 3 {
		p.tell[path]()
		p.await(path, 1)
	}
	for _, r := range p.Proxy.Requests() {
		if !r.Login() && !strings.Contains(r.Path, "/metadata/") {
			t.Errorf("%s %s", r.Method, r.Path)
		}
	}
	if n := p.told(); n != 1 {
		t.Errorf("%d lines at info or above, want one:\n%s", n, p.Log)
	}
	// Told once more when they are for any number.
	p.Server.MustSetRole(p.RoleID, map[string]any{"token_num_uses": 0})
	p.tell[path]()
	p.tell[path]()
	p.logged(toldNotOffered)
}
