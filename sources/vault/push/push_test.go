package push_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/vaulttest/vaultlab"
)

const (
	toldConnected  = "subscribed to vault events"
	toldNotOffered = "vault offers no events"
	toldFailing    = "vault events keep failing"
)

func TestEventBringsThePollOfItsSecretForward(t *testing.T) {
	t.Parallel()
	const other, foreign = "campaign/other/oauth", "elsewhere"
	p := newPushLab(t, func(s *vaulttest.Server, path string) string {
		return s.PushPolicy(path) + s.PushPolicy(other) + s.PushPolicy(foreign)
	})
	p.subscribe(path, other)
	p.await(path, 1) // after the connection was made
	p.await(other, 1)
	p.Proxy.Requests()
	for version := 2; version < 5; version++ {
		p.Server.MustWrite(foreign, oauth())
		p.Server.MustWrite(path, oauth())
		p.await(path, version)
	}
	p.Server.MustWrite(other, oauth())
	p.await(other, 2)
	requests := p.Proxy.Requests()
	if n := metadata(requests, path); n != 3 {
		t.Errorf("%d polls for 3 events", n)
	}
	if n := metadata(requests, other); n != 1 {
		t.Errorf("%d polls of the other secret for 1 event", n)
	}
	if len(requests) != 4 {
		t.Errorf("more was asked than those polls: %+v", requests)
	}
	if n := p.told(); n != 1 {
		t.Errorf("%d lines at info or above:\n%s", n, p.Log)
	}
}

// Mounts have slashes, and events of other secrets are passed over.
func TestEventsOfAnyPath(t *testing.T) {
	t.Parallel()
	const strange = "x/`y\"/z"
	var mount string
	p := newPushLab(t, func(s *vaulttest.Server, path string) string {
		mount = s.MustMountKV("team a/kv", 2)
		return s.PushPolicy(path) + fmt.Sprintf(`path "%s/*" { capabilities = ["read", "subscribe"] subscribe_event_types = ["*"] }`, mount)
	})
	write := func(path string) {
		t.Helper()
		p.Server.MustWriteAt(mount+"/data/"+path, map[string]any{"data": oauth()})
	}
	write(path)
	write(strange)
	p.subscribeTo(mount, path, strange)
	p.await(path, 1)
	p.await(strange, 1)
	p.Proxy.Requests()
	write("foreign")
	write(strange)
	p.await(strange, 2)
	write(path)
	p.await(path, 2)
	if requests := p.Proxy.Requests(); len(requests) != 2 {
		t.Errorf("%d requests for two events: %+v", len(requests), requests)
	}
}

func TestBurstOfEventsIsAFewPolls(t *testing.T) {
	t.Parallel()
	p := newPushLab(t, (*vaulttest.Server).PushPolicy)
	p.subscribe(path)
	p.await(path, 1)
	p.Proxy.Requests()
	began := time.Now()
	for range 99 {
		p.Server.MustWrite(path, oauth())
	}
	p.await(path, 100)
	most := 2 + int(time.Since(began)/time.Second)
	if n := metadata(p.Proxy.Requests(), path); n > most {
		t.Errorf("%d polls for 99 versions, want at most %d", n, most)
	}
}

// Nobody tells of what was written while the connection was gone.
func TestReconnectFindsWhatWasWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	p := newPushLab(t, (*vaulttest.Server).PushPolicy)
	p.subscribe(path)
	p.await(path, 1)
	for version := 2; version < 5; version++ {
		p.Proxy.Down()
		p.Server.MustWrite(path, oauth())
		if err := p.Proxy.Up(); err != nil {
			t.Fatal(err)
		}
		p.await(path, version)
	}
	p.Server.MustWrite(path, oauth())
	p.await(path, 5)
	if n := p.told(); n != 1 {
		t.Errorf("%d lines at info or above for a connection that came back:\n%s", n, p.Log)
	}
}

func TestEventsAfterSeal(t *testing.T) {
	t.Parallel()
	p := pushLabOn(vaultlab.On(t, vaulttest.StartEvents(t), (*vaulttest.Server).PushPolicy, time.Hour)) // it is sealed
	p.subscribe(path)
	p.await(path, 1)
	p.Server.MustSeal()
	p.Proxy.Down() // a sealed Vault keeps the connection
	if err := p.Proxy.Up(); err != nil {
		t.Fatal(err)
	}
	// Polls have found out, so nobody subscribes until one has succeeded again.
	p.logged("subscription to vault events failed, trying again")
	p.Server.MustUnseal()
	p.connected(1)
	p.await(path, 1)
	p.Server.MustWrite(path, oauth())
	p.await(path, 2)
}

// While polls fail, a Vault that is about to come back is left alone by the subscription, also where no poll comes by itself.
func TestNobodySubscribesWhilePollsFail(t *testing.T) {
	t.Parallel()
	for name, polled := range map[string]bool{"polls go on": true, "the next poll is far away": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPushLab(t, (*vaulttest.Server).PushPolicy)
			p.subscribe(path)
			p.await(path, 1)
			p.Proxy.Answer("/v1/", http.StatusServiceUnavailable, "Vault is sealed")
			if polled {
				p.tell[path]()
			}
			p.Proxy.Down()
			if err := p.Proxy.Up(); err != nil {
				t.Fatal(err)
			}
			failed := func(r vaulttest.Request) bool { return strings.Contains(r.Path, "/metadata/") }
			if err := p.Proxy.Await(t.Context(), 50, failed); err != nil {
				t.Fatal(err)
			}
			if n := vaulttest.Count(p.Proxy.Requests(), subscribes); n > 1 { // which may be the connection's own
				t.Errorf("%d tries to subscribe beside polls that fail", n)
			}
			p.Proxy.Forward()
			p.Server.MustWrite(path, oauth())
			p.await(path, 2)
			p.connected(1)
		})
	}
}

func TestSubscriptionTakesTheNewToken(t *testing.T) {
	t.Parallel()
	p := newPushLab(t, (*vaulttest.Server).PushPolicy)
	p.subscribe(path)
	p.await(path, 1)
	for version := 2; version < 4; version++ {
		p.Server.MustRevokeRoleTokens(p.RoleID)
		p.Proxy.Requests()
		p.v.ResetBackoff() // else a second login in a minute is put off
		p.tell[path]()     // a poll finds out, and logs in
		p.connected(1)
		p.await(path, version-1)
		p.await(path, version-1)
		p.Server.MustWrite(path, oauth())
		p.await(path, version)
		requests := p.Proxy.Requests()
		if logins, all := vaulttest.Count(requests, vaulttest.Request.Login), vaulttest.Count(requests, subscribes); logins != 1 || all != 1 {
			t.Errorf("%d logins and %d subscriptions for a token that ended", logins, all)
		}
	}
}

// Where a standby sends its clients to the active node, the subscription goes there; anywhere else it does not.
func TestSubscriptionFollowsAStandby(t *testing.T) {
	t.Parallel()
	p := newPushLab(t, (*vaulttest.Server).PushPolicy)
	p.Proxy.Serve("/v1/sys/events/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, p.Server.Address+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	})
	p.subscribe(path)
	p.logged(toldConnected)
	p.await(path, 1)
	p.Server.MustWrite(path, oauth())
	p.await(path, 2)
}

// Each rule of the policy is needed. Only that of the subscription itself is refused in so many words.
func TestPushPolicyIsTheLeast(t *testing.T) {
	t.Parallel()
	const other = "campaign/other/oauth"
	for _, change := range []struct{ name, from, to string }{
		{"no subscription", `path "sys/events/subscribe/kv-v2/data-*" { capabilities = ["read"] }`, ""},
		{"no capability", `"read", "subscribe"`, `"read"`},
		{"no event types", `subscribe_event_types = ["kv-v2/data-*"]`, ""},
		{"nothing missed", "", ""},
	} {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			p := newPushLab(t, func(s *vaulttest.Server, path string) string {
				return strings.ReplaceAll(s.PushPolicy(path), change.from, change.to) + strings.Join(s.PushRules(other)[:2], "\n")
			})
			p.subscribe(path, other)
			if change.name == "no subscription" {
				p.logged(toldNotOffered)
				return
			}
			p.logged(toldConnected)
			p.await(path, 1) // after the connection was made
			p.await(other, 1)
			told := false
			for version := 2; version < 5; version++ {
				p.Server.MustWrite(path, oauth())
				p.Server.MustWrite(other, oauth())
				p.await(other, version)
				told = told || len(p.found[path]) > 0
			}
			if told != (change.from == "") {
				t.Errorf("events of the secret came: %t", told)
			}
		})
	}
}
