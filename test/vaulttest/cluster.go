package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Cluster is three Vaults, each a process of its own, that keep their storage together by raft. The requests of its
// Server go to the active one, found anew for each. Its own methods are for one goroutine at a time; the Server's may be
// called meanwhile.
type Cluster struct {
	*Server
	Nodes []*Node

	options ClusterOptions
	binary  string
	dir     string
	network *network // nil on loopback
	copied  *Node    // nil: none
}

// ClusterOptions say what is wanted.
type ClusterOptions struct {
	// Multiplier of raft's timeouts. With 1, which HashiCorp recommends for production, a leader that is gone is missed
	// after 1 to 2 s; with 5, Vault's default, after 5 to 10 s.
	Multiplier int
	// Network gives each node a network namespace of its own, so that it can be cut off. Needs root; see NeedsNetwork.
	Network bool
}

// LaunchCluster starts three nodes and returns when all of them vote. ctx bounds building and starting only; progress
// hears of a build. The caller must Close it. A program that is killed leaves nothing behind but the temporary directory.
func LaunchCluster(ctx context.Context, progress io.Writer, options ClusterOptions) (c *Cluster, err error) {
	binary, err := build(ctx, current, progress)
	if err != nil {
		return nil, fmt.Errorf("build test/vault: %w", err)
	}
	dir, err := os.MkdirTemp("", "credsync-cluster-")
	if err != nil {
		return nil, err
	}
	started := &Cluster{options: options, binary: binary, dir: dir, Server: newServer()}
	c = started
	c.client = &http.Client{Transport: &http.Transport{DialContext: c.dialActive, DisableKeepAlives: true}, Timeout: formLimit}
	defer func() {
		if err != nil {
			err = errors.Join(err, started.Close())
		}
	}()
	// Addresses of loopback that nobody else listens on, so that a node can come back at its own.
	prefix := fmt.Sprintf("127.%d.%d.", 64+rand.N(64), rand.N(256))
	if options.Network {
		if c.network, err = newNetwork(ctx, 3); err != nil {
			return nil, err
		}
		prefix = c.network.prefix
	}
	for i := range 3 {
		host := prefix + strconv.Itoa(i+1)
		n := c.newNode("node"+strconv.Itoa(i+1), host, filepath.Join(dir, "node"+strconv.Itoa(i+1)))
		n.index = i
		c.Nodes = append(c.Nodes, n)
		if err = n.launch(ctx); err != nil {
			return nil, err
		}
	}
	c.Address = c.Nodes[0].Address
	if err = c.form(ctx); err != nil {
		return nil, fmt.Errorf("form a cluster: %w", err)
	}
	return c, c.mount(ctx)
}

func (c *Cluster) newNode(id, host, dir string) *Node {
	return &Node{
		ID: id, Address: "http://" + host + ":8200", cluster: c, host: host, dir: dir,
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
}

// Copy starts another Vault with what n stores now, as a cluster of its own: with the same tokens, logins and secrets, it
// knows nothing of what comes later. It ends with the cluster, which must be on loopback, and may be copied once.
func (c *Cluster) Copy(ctx context.Context, n *Node) (*Node, error) {
	if c.network != nil || c.copied != nil {
		return nil, errors.New("copied already, or in a network")
	}
	twin := c.newNode(n.ID, n.host[:strings.LastIndex(n.host, ".")+1]+"9", filepath.Join(c.dir, "copy"))
	// A stopped process's files are as a crash would leave them.
	if err := n.Stop(); err != nil {
		return nil, err
	}
	if err := errors.Join(os.CopyFS(twin.dir, os.DirFS(n.dir)), n.Continue()); err != nil {
		return nil, err
	}
	// Raft's way to start with fewer nodes than there were.
	peers := fmt.Sprintf(`[{"id": %q, "address": "%s:8201", "non_voter": false}]`, twin.ID, twin.host)
	if err := os.WriteFile(filepath.Join(twin.dir, "raft", "peers.json"), []byte(peers), 0o600); err != nil {
		return nil, err
	}
	c.copied = twin
	if err := twin.launch(ctx); err != nil {
		return nil, err
	}
	if err := twin.Unseal(ctx); err != nil {
		return nil, err
	}
	return twin, eventually(ctx, func() bool { return twin.Health(ctx) == http.StatusOK })
}

// StartCluster starts a cluster that ends with the test.
func StartCluster(t testing.TB, options ClusterOptions) *Cluster {
	t.Helper()
	if options.Network {
		NeedsNetwork(t)
	}
	c, err := LaunchCluster(t.Context(), os.Stderr, options)
	if err != nil {
		t.Fatal(err)
	}
	c.t = t
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// form initialises the first node and has the others join it.
func (c *Cluster) form(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, formLimit)
	defer cancel()
	var keys struct {
		Keys      []string
		RootToken string `json:"root_token"`
	}
	first := c.Nodes[0]
	if err := first.call(ctx, http.MethodPut, "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1}, &keys); err != nil {
		return err
	}
	c.UnsealKey, c.Token = keys.Keys[0], keys.RootToken
	if err := first.Unseal(ctx); err != nil {
		return err
	}
	if err := eventually(ctx, func() bool { return c.Active(ctx) == first && c.voters(ctx) == 1 }); err != nil {
		return err
	}
	// A node gets its vote when it was stable for a while, 10 s by default.
	settings := map[string]any{"server_stabilization_time": "1s"}
	configure := func() error {
		return c.Call(ctx, http.MethodPost, "sys/storage/raft/autopilot/configuration", settings, nil)
	}
	if err := insist(ctx, configure); err != nil {
		return err
	}
	for _, n := range c.Nodes[1:] {
		join := func() error {
			return n.call(ctx, http.MethodPut, "sys/storage/raft/join", map[string]any{"leader_api_addr": first.Address}, nil)
		}
		if err := insist(ctx, join); err != nil {
			return err
		}
		if err := insist(ctx, func() error { return n.Unseal(ctx) }); err != nil {
			return err
		}
	}
	return eventually(ctx, func() bool { return c.voters(ctx) == len(c.Nodes) })
}

func (c *Cluster) voters(ctx context.Context) (n int) {
	var answer struct {
		Data struct {
			Config struct{ Servers []struct{ Voter bool } }
		}
	}
	if c.Call(ctx, http.MethodGet, "sys/storage/raft/configuration", nil, &answer) != nil {
		return 0
	}
	for _, server := range answer.Data.Config.Servers {
		if server.Voter {
			n++
		}
	}
	return n
}

// Close ends the nodes and removes what they stored.
func (c *Cluster) Close() error {
	var failed []error
	for _, n := range c.Nodes {
		n.kill()
	}
	if c.copied != nil {
		c.copied.kill()
	}
	if c.network != nil {
		failed = append(failed, c.network.close())
	}
	c.client.CloseIdleConnections()
	return errors.Join(append(failed, os.RemoveAll(c.dir))...)
}

// Active is the node that says it is the active one, among those that are not stopped, killed or cut off; nil: none.
func (c *Cluster) Active(ctx context.Context) *Node {
	found := make(chan *Node, len(c.Nodes))
	for _, n := range c.Nodes {
		go func() {
			if n.Away() || n.Health(ctx) != http.StatusOK {
				n = nil
			}
			found <- n
		}()
	}
	var active *Node
	for range c.Nodes {
		if n := <-found; n != nil {
			active = n
		}
	}
	return active
}

// AwaitActive waits until there is an active node that serves the mount.
func (c *Cluster) AwaitActive(ctx context.Context) (*Node, error) {
	var active *Node
	err := eventually(ctx, func() bool {
		active = c.Active(ctx)
		return active != nil && c.Call(ctx, http.MethodGet, c.Mount+"/config", nil, nil) == nil
	})
	return active, err
}

// Others are the nodes but n, not stopped, killed or cut off.
func (c *Cluster) Others(n *Node) (nodes []*Node) {
	for _, other := range c.Nodes {
		if other != n && !other.Away() {
			nodes = append(nodes, other)
		}
	}
	return nodes
}

// StepDown has the active node hand over to another one, as an operator does before an upgrade.
func (c *Cluster) StepDown(ctx context.Context) error {
	return c.Call(ctx, http.MethodPut, "sys/step-down", nil, nil)
}

// dialActive waits for an active node: on a busy machine a leader may lose its place at any time.
func (c *Cluster) dialActive(ctx context.Context, network, _ string) (net.Conn, error) {
	var active *Node
	if err := eventually(ctx, func() bool { active = c.Active(ctx); return active != nil }); err != nil {
		return nil, fmt.Errorf("no node of the cluster is active: %w", err)
	}
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, net.JoinHostPort(active.host, "8200"))
}

// formLimit is for a cluster that hangs. On a busy machine a leader may lose its place meanwhile.
const formLimit = 3 * time.Minute

// insist calls again until call succeeds, and returns its last error when ctx ends before.
func insist(ctx context.Context, call func() error) error {
	var last error
	err := eventually(ctx, func() bool { last = call(); return last == nil })
	return errors.Join(err, last)
}

func eventually(ctx context.Context, holds func() bool) error {
	for !holds() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
