package vault_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault"
	"campaign-credsync/test/vaulttest"
)

// Three real nodes. What a standby answers, and what comes of a change of the leader at the worst moments, with a source
// that is told of one address only.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := vaulttest.StartCluster(t, vaulttest.ClusterOptions{Multiplier: 5})
	l := newLabOn(t, c.Server, (*vaulttest.Server).ReadPolicy, time.Hour)
	version := l.Server.MustWrite(path, oauth())
	active := func() *vaulttest.Node {
		t.Helper()
		n, err := c.AwaitActive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	// read polls until it is answered: on a busy machine the leader may change at any time.
	read := func(kv *vault.KV, need func(credential.Version) bool) {
		t.Helper()
		l.Eventually(func() bool {
			r, err := kv.Poll(t.Context(), need)
			if err != nil {
				l.temporary(err)
				return false
			}
			if r.Version.Number != version || need(r.Version) != (r.Credential != nil) {
				t.Errorf("version %d, a credential %v", r.Version.Number, r.Credential != nil)
			}
			return true
		})
	}
	others := func(leader *vaulttest.Node) []*vaulttest.Node {
		return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *vaulttest.Node) bool { return n == leader })
	}

	t.Run("a standby forwards logins and reads", func(t *testing.T) {
		for _, standby := range others(active()) {
			l.Proxy.Point(standby.Host())
			read(l.KV(l.Vault()), always)
		}
	})
	t.Run("a standby that redirects is followed, with a login too", func(t *testing.T) {
		l.Proxy.Point(others(active())[0].Host())
		l.Proxy.Serve("/v1/", func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("X-Vault-No-Request-Forwarding", "1")
			l.Proxy.Pass(w, r)
		})
		defer l.Proxy.Forward()
		read(l.KV(l.Vault()), always)
	})
	t.Run("a token serves at every node at once", func(t *testing.T) {
		active()
		for i := range 2 * len(c.Nodes) {
			// The login goes to one node, the reads to the next.
			l.Proxy.Serve("/v1/", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				l.Proxy.Pass(w, r)
			})
			l.Proxy.Point(c.Nodes[i%3].Host(), c.Nodes[(i+1)%3].Host())
			read(l.KV(l.Vault()), always)
			l.Proxy.Forward()
		}
	})
	t.Run("the leader changes between metadata and data", func(t *testing.T) {
		l.Proxy.Point(hosts(c.Nodes...)...)
		kv := l.KV(l.Vault())
		read(kv, never)
		leader := active()
		l.Logins()
		change := func(credential.Version) bool { leader.Kill(); return true }
		if _, err := kv.Poll(t.Context(), change); err != nil {
			l.temporary(err)
		}
		l.Eventually(func() bool {
			r, err := kv.Poll(t.Context(), always)
			if err != nil {
				l.temporary(err)
			}
			return err == nil && r.Version.Number == version && r.Credential != nil
		})
		if n := l.Logins(); n > 0 {
			t.Errorf("%d logins: the token outlives the leader that gave it", n)
		}
		if err := leader.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the leader changes during a login", func(t *testing.T) {
		active()
		l.Proxy.Point(hosts(c.Nodes...)...)
		l.Proxy.Serve("/login", func(w http.ResponseWriter, r *http.Request) {
			if err := c.StepDown(t.Context()); err != nil {
				t.Error(err)
			}
			l.Proxy.Pass(w, r)
		})
		kv := l.KV(l.Vault())
		_, err := kv.Poll(t.Context(), never)
		l.Proxy.Forward()
		if err != nil {
			l.temporary(err)
		}
		if _, err := os.Stat(filepath.Join(l.Config.StateDir, "refused-secret-id.json")); err == nil {
			t.Error("a login that met no active node is noted as refused")
		}
		l.Eventually(func() bool { _, err := kv.Poll(t.Context(), never); return err == nil })
	})
	t.Run("two of three are gone", func(t *testing.T) {
		kv := l.KV(l.Vault())
		read(kv, never)
		leader := active()
		standbys := others(leader)
		l.Proxy.Point(standbys[0].Host())
		leader.Kill()
		standbys[1].Kill()
		var said string
		l.Eventually(func() bool {
			_, err := kv.Poll(t.Context(), never)
			if err == nil {
				t.Fatal("there is nobody to answer")
			}
			l.temporary(err)
			said = err.Error()
			return strings.Contains(said, "a standby redirects to "+leader.Address+" as the active node, and there the connection is refused")
		})
		for _, n := range []*vaulttest.Node{leader, standbys[1]} {
			if err := n.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		l.Eventually(func() bool { _, err := kv.Poll(t.Context(), never); return err == nil })
	})
}

// The node that a standby redirects to is a standby itself by now, and redirects on: that passes, where a redirect to
// somebody else does not. Made by hand, as real nodes do it for moments only.
func TestRedirectedTwice(t *testing.T) {
	l := newLab(t)
	second := l.Server.Proxy(t)
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", to+r.URL.RequestURI())
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	}
	l.Proxy.Serve("/v1/", redirect(second.Address))
	second.Serve("/v1/", redirect(l.Proxy.Address))
	_, err := l.KV(l.Vault()).Poll(t.Context(), never)
	l.temporary(err)
	for _, want := range []string{l.Proxy.Address, "api_addr"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// temporary demands of an error that it calls for no person: waiting mends a change of the leader.
func (l *lab) temporary(err error) {
	l.T.Helper()
	if vaultSays.MatchString(err.Error()) && !strings.Contains(err.Error(), "electing") {
		l.T.Errorf("does not tell of an election: %v", err)
	}
	if credential.IsForOperator(err) || errors.As(err, new(*credential.Refusal)) {
		l.T.Errorf("calls for a person: %v", err)
	}
	text := clock.ReplaceAllString(err.Error(), "…")
	if text != l.lastSaid {
		l.T.Log(time.Now().Format("05.000"), text)
	}
	l.lastSaid = text
}

// vaultSays is how a standby says that it knows no active node.
var vaultSays = regexp.MustCompile(`local node not active|no active Vault instance`)

func hosts(nodes ...*vaulttest.Node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.Host())
	}
	return all
}

var clock = regexp.MustCompile(`\d{4}-\d\d-\d\dT\S+`)
