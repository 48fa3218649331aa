package sources_test

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"strings"
	"sync"
	"testing"
	"time"

	"campaign-credsync/sources"
	"campaign-credsync/sources/vaulttest"
)

// pushLab subscribes to events of secrets, and polls a secret when it is told to, until a poll succeeds, as the daemon does.
type pushLab struct {
	*lab
	vault *sources.Vault
	tell  map[string]func()   // by path: has the secret polled
	found map[string]chan int // likewise: the version that each poll found
	stop  func()
}

func newPushLab(t *testing.T, policy func(s *vaulttest.Server, path string) string) *pushLab {
	t.Helper()
	return pushLabOn(newLabOn(t, vaulttest.StartEvents(t), policy, time.Hour))
}

func pushLabOn(l *lab) *pushLab {
	l.t.Helper()
	p := &pushLab{lab: l, vault: l.vault(), tell: map[string]func(){}, found: map[string]chan int{}}
	p.vault.HurryEvents()
	return p
}

// subscribe polls each of the secrets at paths once, and subscribes to them.
func (p *pushLab) subscribe(paths ...string) {
	p.t.Helper()
	for _, path := range paths {
		p.server.MustWrite(path, oauth())
	}
	p.subscribeTo(p.server.Mount, paths...)
}

func (p *pushLab) subscribeTo(mount string, paths ...string) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	funcs := map[*sources.KV]func(){}
	for _, path := range paths {
		kv, told, found := p.vault.KV(mount, path), make(chan struct{}, 1), make(chan int, 1000)
		p.tell[path] = func() {
			select {
			case told <- struct{}{}:
			default:
			}
		}
		funcs[kv], p.found[path] = p.tell[path], found
		running.Go(func() { polls(ctx, kv, told, found) })
	}
	running.Go(func() { p.vault.Subscribe(ctx, time.Second, funcs) })
	p.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	p.t.Cleanup(p.stop)
	for _, path := range paths {
		p.await(path, 1)
	}
}

func polls(ctx context.Context, kv *sources.KV, told <-chan struct{}, found chan<- int) {
	for {
		reading, err := kv.Poll(ctx, never)
		var again <-chan time.Time
		if err != nil {
			again = time.After(2 * time.Millisecond)
		} else {
			found <- reading.Version.Number
		}
		select {
		case <-told:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// await waits for a poll that finds a version.
func (p *pushLab) await(path string, version int) {
	p.t.Helper()
	for late := time.After(time.Minute); ; {
		select {
		case found := <-p.found[path]:
			if found == version {
				return
			}
		case <-late:
			p.t.Fatalf("no poll of %s has found version %d:\n%s", path, version, p.log)
		}
	}
}

// connected waits for n connections since the last call of p.proxy.Requests, and for the poll that follows the last.
func (p *pushLab) connected(n int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	if err := p.proxy.Await(ctx, n, subscribes); err != nil {
		p.t.Fatalf("%d connections: %v\n%s", n, err, p.log)
	}
}

// logged waits for a line of the log.
func (p *pushLab) logged(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	if err := p.log.Await(ctx, text); err != nil {
		p.t.Fatal(err)
	}
}

// told counts the lines of the log at info and above.
func (p *pushLab) told() (n int) {
	for line := range strings.Lines(p.log.String()) {
		if !strings.Contains(line, "level=DEBUG") {
			n++
		}
	}
	return n
}

func subscribes(r vaulttest.Request) bool {
	return strings.HasPrefix(r.Path, "/v1/sys/events/subscribe/")
}

// metadata counts the polls of a secret among requests.
func metadata(requests []vaulttest.Request, path string) int {
	return vaulttest.Count(requests, func(r vaulttest.Request) bool { return strings.HasSuffix(r.Path, "/metadata/"+path) })
}

// accept is the answer to a WebSocket's key.
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
