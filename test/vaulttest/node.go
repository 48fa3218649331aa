package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Node is one Vault of a Cluster.
type Node struct {
	ID      string
	Address string // http://host:8200

	cluster *Cluster
	index   int
	host    string
	dir     string // of its storage
	client  *http.Client

	mu      sync.Mutex // guards what follows
	process *process   // nil: killed
	away    bool       // stopped, killed or cut off
}

func (n *Node) launch(ctx context.Context) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	command := []string{
		n.cluster.binary, "-until-eof", "-listen", n.host + ":8200", "-raft-dir", n.dir, "-node-id", n.ID,
		"-cluster-addr", n.host + ":8201", "-raft-multiplier", strconv.Itoa(max(1, n.cluster.options.Multiplier)),
	}
	if n.cluster.network != nil {
		command = append(n.cluster.network.within(n.index), command...)
	}
	p, _, err := startProcess(ctx, exec.Command(command[0], command[1:]...))
	if err != nil {
		return fmt.Errorf("start %s: %w", n.ID, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = p
	return nil
}

// Host is its address without scheme, as [Proxy.Point] takes it.
func (n *Node) Host() string { return n.host + ":8200" }

// Away reports whether it is stopped, killed or cut off.
func (n *Node) Away() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.away
}

func (n *Node) signal(s syscall.Signal, away bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away = away
	return n.process.command.Process.Signal(s)
}

// Stop stops its process: connections are accepted, and nothing is answered.
func (n *Node) Stop() error { return n.signal(syscall.SIGSTOP, true) }

// Continue undoes Stop.
func (n *Node) Continue() error { return n.signal(syscall.SIGCONT, false) }

// Kill ends its process without any warning.
func (n *Node) Kill() {
	n.mu.Lock()
	n.away = true
	n.mu.Unlock()
	n.kill()
}

func (n *Node) kill() {
	n.mu.Lock()
	p := n.process
	n.process = nil
	n.mu.Unlock()
	if p != nil {
		p.command.Process.Kill()
		<-p.done
		p.stdin.Close()
	}
}

// Restart starts it again after Kill, with what it had stored, and unseals it.
func (n *Node) Restart(ctx context.Context) error {
	if err := n.launch(ctx); err != nil {
		return err
	}
	if err := n.Unseal(ctx); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away = false
	return nil
}

// CutOff takes its cable away: nothing comes or goes, and no connection is told. The cluster must have a Network.
func (n *Node) CutOff(ctx context.Context) error { return n.cable(ctx, "down", true) }

// Rejoin undoes CutOff.
func (n *Node) Rejoin(ctx context.Context) error { return n.cable(ctx, "up", false) }

func (n *Node) cable(ctx context.Context, state string, away bool) error {
	n.mu.Lock()
	n.away = away
	n.mu.Unlock()
	return n.cluster.network.port(ctx, n.index, state)
}

// Unseal unseals it.
func (n *Node) Unseal(ctx context.Context) error {
	return n.call(ctx, http.MethodPut, "sys/unseal", map[string]any{"key": n.cluster.UnsealKey}, nil)
}

// Health is the status of its answer to sys/health: 200 active, 429 standby, 503 sealed; 0: none within a second.
func (n *Node) Health(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := n.call(ctx, http.MethodGet, "sys/health", nil, nil)
	if err == nil {
		return http.StatusOK
	}
	if answer, ok := errors.AsType[*StatusError](err); ok {
		return answer.Status
	}
	return 0
}

// call makes one request to this very node, which forwards it where it is a standby.
func (n *Node) call(ctx context.Context, method, path string, body, into any) error {
	own := &Server{Address: n.Address, Token: n.cluster.Token, client: n.client}
	return own.Call(ctx, method, path, body, into)
}
