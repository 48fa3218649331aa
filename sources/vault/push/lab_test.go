package push_test

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"flag"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"campaign-credsync/sources/vault"
	"campaign-credsync/sources/vault/push"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/vaulttest/vaultlab"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // they wait more than they compute
	goleak.VerifyTestMain(vaulttest.Sharing{M: m})
}

const path = vaultlab.Path

var (
	oauth = vaultlab.OAuth
	never = vaultlab.Never
)

// pushLab subscribes to events of secrets, and polls a secret when it is told to, until a poll succeeds, as the daemon does.
type pushLab struct {
	*vaultlab.Lab
	v     *vault.Vault
	tell  map[string]func()   // by path: has the secret polled
	found map[string]chan int // likewise: the version that each poll found
	tune  []func(*push.Config)
	stop  func()
}

func newPushLab(t *testing.T, policy func(s *vaulttest.Server, path string) string) *pushLab {
	t.Helper()
	return pushLabOn(vaultlab.On(t, vaulttest.SharedEvents(t), policy, time.Hour))
}

func pushLabOn(l *vaultlab.Lab) *pushLab {
	l.T.Helper()
	p := &pushLab{Lab: l, v: l.Vault(), tell: map[string]func(){}, found: map[string]chan int{}}
	return p
}

// subscribe polls each of the secrets at paths once, and subscribes to them.
func (p *pushLab) subscribe(paths ...string) {
	p.T.Helper()
	for _, path := range paths {
		p.Server.MustWrite(path, oauth())
	}
	p.subscribeTo(p.Server.Mount, paths...)
}

func (p *pushLab) subscribeTo(mount string, paths ...string) {
	p.T.Helper()
	ctx, cancel := context.WithCancel(p.T.Context())
	var running sync.WaitGroup
	funcs := map[*vault.KV]func(){}
	for _, path := range paths {
		kv, told, found := p.v.KV(mount, path, 2), make(chan struct{}, 1), make(chan int, 1000)
		p.tell[path] = func() {
			select {
			case told <- struct{}{}:
			default:
			}
		}
		funcs[kv], p.found[path] = p.tell[path], found
		running.Go(func() { polls(ctx, kv, told, found) })
	}
	config := p.v.PushConfig(time.Second, funcs)
	config.Hurry()
	for _, tune := range p.tune {
		tune(&config)
	}
	running.Go(func() { push.Subscribe(ctx, config) })
	p.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	p.T.Cleanup(p.stop)
	for _, path := range paths {
		p.await(path, 1)
	}
}

func polls(ctx context.Context, kv *vault.KV, told <-chan struct{}, found chan<- int) {
	for {
		reading, err := kv.Poll(ctx, never)
		var again <-chan time.Time
		if err != nil {
			again = time.After(10 * time.Millisecond)
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
	p.T.Helper()
	for late := time.After(vaulttest.Patience); ; {
		select {
		case found := <-p.found[path]:
			if found == version {
				return
			}
		case <-late:
			p.T.Fatalf("no poll of %s has found version %d:\n%s", path, version, p.Log)
		}
	}
}

// connected waits for n connections since the last call of p.Proxy.Requests, and for the poll that follows the last.
func (p *pushLab) connected(n int) {
	p.T.Helper()
	ctx, cancel := context.WithTimeout(p.T.Context(), vaulttest.Patience)
	defer cancel()
	if err := p.Proxy.Await(ctx, n, subscribes); err != nil {
		p.T.Fatalf("%d connections: %v\n%s", n, err, p.Log)
	}
}

// logged waits for a line of the log.
func (p *pushLab) logged(text string) {
	p.T.Helper()
	ctx, cancel := context.WithTimeout(p.T.Context(), vaulttest.Patience)
	defer cancel()
	if err := p.Log.Await(ctx, text); err != nil {
		p.T.Fatal(err)
	}
}

// told counts the lines of the log at info and above.
func (p *pushLab) told() (n int) {
	for line := range strings.Lines(p.Log.String()) {
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
