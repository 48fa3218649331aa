package faults_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// rotated is a container whose secret is rotated, in a cluster that loses its leader.
type rotated struct {
	*world.World
	how     string // its way to the cluster
	version int
	secrets []string
}

// rotate writes the next version as soon as there is somebody to take it. The answer to a write may be lost, and then
// nobody knows whether it was done: the number of the version before is sent along, so that the same write cannot be
// done twice, and a refusal of that number says that it was done.
func (r *rotated) rotate() {
	r.T.Helper()
	secret := "p8e-" + (rand.Text() + rand.Text())[:32]
	r.Secrets, r.secrets = append(r.Secrets, secret), append(r.secrets, secret)
	body := map[string]any{"data": container.Credential(secret), "options": map[string]int{"cas": r.version}}
	within(r.World, time.Minute, "a version is written", func() bool {
		ctx, cancel := context.WithTimeout(r.Ctx, 3*time.Second) // a node may hang that had forwarded to the lost one
		defer cancel()
		err := r.Vault.Call(ctx, http.MethodPost, r.Vault.Mount+"/data/"+r.SecretPath("prod"), body, nil)
		answer, ok := errors.AsType[*vaulttest.StatusError](err)
		return err == nil || ok && answer.Status == http.StatusBadRequest && strings.Contains(answer.Body, "check-and-set")
	})
	r.version++
}

// applied waits until the newest version is in sync.
func (r *rotated) applied() {
	r.T.Helper()
	within(r.World, 2*time.Minute, "the newest version is applied", func() bool {
		s, err := r.Asker().Status(r.Ctx)
		return err == nil && s.Is("in_sync") && world.One(s, "prod").AppliedVersion == r.version
	})
	r.Holds("prod", r.secrets[len(r.secrets)-1])
}

// onceEach demands that nlserver was given every version once, in order.
func (r *rotated) onceEach() {
	r.T.Helper()
	var want, got []string
	for _, secret := range r.secrets {
		sum := sha256.Sum256([]byte(secret))
		want = append(want, hex.EncodeToString(sum[:])[:16])
	}
	runs, err := r.Runs()
	r.Must(err)
	for _, run := range runs {
		if run.Kind == "set" && run.Event == "start" {
			got = append(got, run.SecretSHA256)
		}
	}
	if !slices.Equal(got, want) {
		r.T.Errorf("%s: %d versions were written, and nlserver was given %d, these: %v of %v\n%s", r.how, len(want), len(got), got, want, r.Log())
	}
}

// A cluster of three real Vaults loses its leader in every way while rotations go on. Whichever way a daemon has to the
// cluster, it applies each version once, puts drift back meanwhile, needs no other token and calls for no person.
func TestClusterLosesItsLeader(t *testing.T) {
	t.Parallel()
	vaulttest.NeedsNetwork(t)
	rounds, multiplier := 1, 2
	if *full {
		rounds, multiplier = 3, 5
	}
	c := vaulttest.StartCluster(t, vaulttest.ClusterOptions{Network: true, Multiplier: multiplier})
	turns := &rotated{how: "a load balancer that leads to each in turn"}
	standby := &rotated{how: "a standby"}
	leader := &rotated{how: "the leader that is lost"}
	all := []*rotated{turns, standby, leader}
	for _, r := range all {
		r.World = world.New(t, container.Options{Vault: c.Server})
		r.Proxy.Point(c.Nodes[0].Host(), c.Nodes[1].Host(), c.Nodes[2].Host())
		r.rotate()
		r.StartDaemon()
	}
	for _, r := range all {
		r.applied()
	}
	for range rounds {
		for _, fault := range []struct {
			name       string
			lose, back func(*vaulttest.Node) error
		}{
			{"killed", func(n *vaulttest.Node) error { n.Kill(); return nil }, func(n *vaulttest.Node) error { return n.Restart(t.Context()) }},
			{"stopped", (*vaulttest.Node).Stop, (*vaulttest.Node).Continue},
			{"cut off", func(n *vaulttest.Node) error { return n.CutOff(t.Context()) }, func(n *vaulttest.Node) error { return n.Rejoin(t.Context()) }},
			{"stepped down", func(*vaulttest.Node) error { return c.StepDown(t.Context()) }, func(*vaulttest.Node) error { return nil }},
		} {
			active, err := c.AwaitActive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			standby.Proxy.Point(c.Others(active)[0].Host())
			leader.Proxy.Point(active.Host())
			for _, r := range all {
				r.Proxy.Requests()
				r.Must(r.Proxy.Await(r.Ctx, 1, func(vaulttest.Request) bool { return true }))
			}
			lost := time.Now()
			turns.Must(fault.lose(active))
			for _, r := range all {
				r.Blank("prod")
				r.OnDisk("prod", r.secrets[len(r.secrets)-1])
			}
			back := time.Since(lost)
			for _, r := range all {
				r.rotate()
			}
			written := time.Since(lost)
			turns.applied()
			t.Logf("%s: drift reverted after %v, next version written after %v, applied after %v by %s, which sent %d requests", fault.name,
				back.Round(time.Millisecond), written.Round(time.Millisecond), time.Since(lost).Round(time.Millisecond), turns.how, len(turns.Proxy.Requests()))
			standby.applied() // it did not wait for the others
			t.Logf("%s: applied after %v by %s, which sent %d requests", fault.name, time.Since(lost).Round(time.Millisecond), standby.how, len(standby.Proxy.Requests()))
			returned := time.Now()
			turns.Must(fault.back(active))
			leader.applied()
			t.Logf("%s: applied %v after its return by %s, which sent %d requests", fault.name, time.Since(returned).Round(time.Millisecond), leader.how, len(leader.Proxy.Requests()))
			for _, r := range all {
				r.rotate()
			}
			for _, r := range all {
				r.applied()
				r.onceEach()
			}
		}
	}
	for _, r := range all {
		if strings.Contains(r.Log(), "level=ERROR") {
			t.Errorf("%s: a person is called\n%s", r.how, r.Log())
		}
		if n := r.Tokens(); n != 1 {
			t.Errorf("%s: %d tokens", r.how, n)
		}
	}
}

// A node of Vault that is behind the others: a real one, with what the cluster had stored earlier, so that it knows the
// login, the token and the secret, and none of the versions since.
func TestNodeOfVaultIsBehind(t *testing.T) {
	t.Parallel()
	c := vaulttest.StartCluster(t, vaulttest.ClusterOptions{Multiplier: 2})
	r := &rotated{World: world.New(t, container.Options{Vault: c.Server}), how: "a front that leads to the one behind"}
	active, err := c.AwaitActive(t.Context())
	r.Must(err)
	r.Proxy.Point(active.Host())
	r.rotate()
	r.StartDaemon()
	r.applied()
	behind, err := c.Copy(t.Context(), active)
	r.Must(err)
	r.rotate()
	r.applied()
	r.rotate()
	r.applied()
	newest := r.secrets[len(r.secrets)-1]

	r.Proxy.Point(behind.Host())
	r.Is("prod", "blocked/secret_rollback", "goes back from version 3", "the source is behind")
	r.Proxy.Requests()
	keepsAndGuards(r.World, newest)
	r.Must(r.Proxy.Await(r.Ctx, 3, func(vaulttest.Request) bool { return true }))
	for _, request := range r.Proxy.Requests() {
		if request.DataRead() {
			t.Error("the secret is read for a version that goes back")
		}
	}
	r.Proxy.Point(active.Host())
	r.applied()
	r.onceEach()

	// Polls meet one of them and the other in turn.
	var every atomic.Bool // each request, not each poll
	var asked atomic.Int64
	r.Proxy.Serve("/v1/", func(w http.ResponseWriter, request *http.Request) {
		if every.Load() || strings.Contains(request.URL.Path, "/metadata/") {
			r.Proxy.Point([]string{behind.Host(), active.Host()}[asked.Add(1)%2])
		}
		r.Proxy.Pass(w, request)
	})
	states := map[string]int{}
	within(r.World, time.Minute, "polls have met both several times", func() bool {
		if s, err := r.Asker().Status(r.Ctx); err == nil {
			states[world.One(s, "prod").State]++
		}
		return asked.Load() >= 8
	})
	if states["blocked"] == 0 || states["in_sync"] == 0 || len(states) != 2 {
		t.Errorf("states %v", states)
	}
	if n := strings.Count(r.Log(), "level=ERROR"); n != 1 {
		t.Errorf("%d alarms, want 1\n%s", n, r.Log())
	}
	if n := strings.Count(r.Log(), `level=INFO msg="secret accepted again"`); n != 1 {
		t.Errorf("told %d times that it is over\n%s", n, r.Log())
	}
	every.Store(true)
	r.rotate()
	within(r.World, time.Minute, "one lists the new version and the other has none", func() bool {
		return strings.Contains(r.Log(), "version 4 of") && strings.Contains(r.Log(), "is listed and cannot be read")
	})
	every.Store(false)
	within(r.World, time.Minute, "the new version is applied", func() bool {
		s, err := r.Asker().Status(r.Ctx)
		return err == nil && world.One(s, "prod").AppliedVersion == r.version
	})
	r.Proxy.Forward()
	r.Proxy.Point(behind.Host())

	// The next daemon, which knows what is applied from its state alone, logs in at that node.
	r.Stop()
	r.StartDaemon()
	r.Is("prod", "blocked/secret_rollback", "goes back from version 4")
	keepsAndGuards(r.World, r.secrets[3])

	r.Proxy.Point(active.Host())
	r.applied()
	r.onceEach()
}
