package sources_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources"
	"campaign-credsync/sources/vaulttest"
)

// eventPolicy is what the documentation gives for polls and push.
func eventPolicy(s *vaulttest.Server, path string) string {
	return strings.Join(eventRules(s.Mount, path), "\n")
}

func eventRules(mount, path string) []string {
	return []string{
		fmt.Sprintf(`path "%s/metadata/%s" { capabilities = ["read"] }`, mount, path),
		fmt.Sprintf(`path "%s/data/%s" { capabilities = ["read", "subscribe"] subscribe_event_types = ["kv-v2/data-*"] }`, mount, path),
		`path "sys/events/subscribe/kv-v2/data-*" { capabilities = ["read"] }`,
	}
}

// pushed is a subscription to some secrets, and a loop for each that polls when it is told to, as the daemon's does.
type pushed struct {
	*lab
	vault    *sources.Vault
	secrets  map[string]*sources.KV // by path
	told     map[string]chan struct{}
	stop     context.CancelFunc
	finished chan struct{}
}

// newPushed subscribes to the secrets at paths, below the server's mount.
func newPushed(l *lab, paths ...string) *pushed {
	l.t.Helper()
	p := &pushed{lab: l, vault: l.vault(), secrets: map[string]*sources.KV{}, told: map[string]chan struct{}{}, finished: make(chan struct{})}
	p.vault.HurryEvents()
	for _, path := range paths {
		p.secrets[path] = p.vault.KV(l.server.Mount, path, nil)
		p.told[path] = make(chan struct{}, 1000)
	}
	return p
}

func (p *pushed) subscribe() {
	ctx, stop := context.WithCancel(p.t.Context())
	p.stop = stop
	funcs := map[*sources.KV]func(){}
	for path, kv := range p.secrets {
		funcs[kv] = func() { p.told[path] <- struct{}{} }
	}
	go func() {
		defer close(p.finished)
		p.vault.Subscribe(ctx, time.Second, funcs)
	}()
	p.t.Cleanup(func() { stop(); <-p.finished })
}

// await waits for the secret at path to be told of.
func (p *pushed) await(path string) {
	p.t.Helper()
	select {
	case <-p.told[path]:
	case <-p.t.Context().Done():
		p.t.Fatal(p.t.Context().Err())
	case <-time.After(20 * time.Second):
		p.t.Fatalf("nobody told of %s:\n%s", path, p.log)
	}
}

// connected waits for the connection, of which every secret is told once.
func (p *pushed) connected() {
	p.t.Helper()
	for path := range p.told {
		p.await(path)
	}
}

func subscribes(r vaulttest.Request) bool {
	return strings.HasPrefix(r.Path, "/v1/sys/events/subscribe/")
}

func TestEventBringsThePollOfItsSecretForward(t *testing.T) {
	const other, foreign = "campaign/other/oauth", "elsewhere"
	l := newLabOn(t, vaulttest.StartEvents(t), func(s *vaulttest.Server, path string) string {
		return eventPolicy(s, path) + eventPolicy(s, other) + eventPolicy(s, foreign)
	}, time.Hour)
	l.server.MustWrite(path, oauth())
	l.server.MustWrite(other, oauth())
	p := newPushed(l, path, other)
	p.subscribe()
	p.mustPoll(p.secrets[path], always)
	p.connected()
	for range 3 {
		l.server.MustWrite(foreign, oauth())
		l.server.MustWrite(path, oauth())
		p.await(path)
	}
	l.server.MustWrite(other, oauth())
	p.await(other)
	for path, told := range p.told {
		if n := len(told); n != 0 {
			t.Errorf("%s was told of %d times too often", path, n)
		}
	}
	if n := count(l.proxy.Requests(), subscribes); n != 1 {
		t.Errorf("%d connections for two secrets", n)
	}
}
