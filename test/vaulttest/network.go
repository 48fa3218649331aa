package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"campaign-credsync/test/skip"
)

// network is a switch and hosts, each a network namespace, with cables (veth pairs) between them and one to here.
// Namespaces live as long as a process in them, and cables as long as both ends: whatever happens to this process,
// nothing is left.
type network struct {
	prefix  string // of every host's address: host i has i+1
	holders []*holder
}

// holder is a process that keeps a network namespace alive. It ends with its standard input.
type holder struct {
	command *exec.Cmd
	stdin   io.Closer
}

func (h *holder) pid() string { return strconv.Itoa(h.command.Process.Pid) }

// NeedsNetwork tells whether network namespaces are to be had.
func NeedsNetwork(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root, for network namespaces")
	}
	for _, program := range []string{"ip", "unshare", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			skip.Unable(t, "needs "+program+" (iproute2, util-linux)")
		}
	}
	if out, err := exec.Command("unshare", "--net", "true").CombinedOutput(); err != nil {
		skip.Unable(t, fmt.Sprintf("needs network namespaces: %v: %s", err, out))
	}
}

func newNetwork(ctx context.Context, hosts int) (n *network, err error) {
	// 198.18.0.0/15 is for tests between networks (RFC 2544).
	third := rand.N(256)
	n = &network{prefix: fmt.Sprintf("198.18.%d.", third)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	for range hosts + 1 {
		if err := n.hold(); err != nil {
			return nil, err
		}
	}
	middle := n.holders[hosts]
	inside := func(h *holder, args ...string) error { return run(ctx, append(enter(h), args...)...) }
	steps := []error{
		inside(middle, "ip", "link", "add", "switch", "type", "bridge"),
		inside(middle, "ip", "link", "set", "switch", "up"),
	}
	for i, host := range n.holders[:hosts] {
		steps = append(steps,
			inside(middle, "ip", "link", "add", cable(i), "type", "veth", "peer", "name", "eth0", "netns", host.pid()),
			inside(middle, "ip", "link", "set", cable(i), "master", "switch", "up"),
			inside(host, "ip", "link", "set", "lo", "up"),
			inside(host, "ip", "addr", "add", n.prefix+strconv.Itoa(i+1)+"/24", "dev", "eth0"),
			inside(host, "ip", "link", "set", "eth0", "up"))
	}
	here := fmt.Sprintf("credsync%d", third)
	steps = append(steps,
		inside(middle, "ip", "link", "add", "here", "type", "veth", "peer", "name", here, "netns", strconv.Itoa(os.Getpid())),
		inside(middle, "ip", "link", "set", "here", "master", "switch", "up"),
		run(ctx, "ip", "addr", "add", n.prefix+"254/24", "dev", here),
		run(ctx, "ip", "link", "set", here, "up"))
	return n, errors.Join(steps...)
}

// hold adds a network namespace.
func (n *network) hold() error {
	h := &holder{command: exec.Command("unshare", "--net", "sh", "-c", "echo; exec cat")}
	h.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if h.stdin, err = h.command.StdinPipe(); err != nil {
		return err
	}
	stdout, err := h.command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.command.Start(); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	n.holders = append(n.holders, h)
	// It speaks when it is where it should be.
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	return nil
}

func enter(h *holder) []string {
	return []string{"nsenter", "--net=/proc/" + h.pid() + "/ns/net", "--"}
}

// within is what a command begins with that is to run on a host.
func (n *network) within(host int) []string { return enter(n.holders[host]) }

func cable(host int) string { return "host" + strconv.Itoa(host+1) }

// port sets the switch's port of a host up or down.
func (n *network) port(ctx context.Context, host int, state string) error {
	return run(ctx, append(enter(n.holders[len(n.holders)-1]), "ip", "link", "set", cable(host), state)...)
}

func (n *network) close() error {
	for _, h := range n.holders {
		h.stdin.Close()
		h.command.Wait() // by a signal or not, it is gone
	}
	return nil
}

func run(ctx context.Context, command ...string) error {
	if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", command, err, out)
	}
	return nil
}
