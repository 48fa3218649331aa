package container

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Activation is what systemd does with campaign-credsync-activate.socket: for each connection it runs "campaign-credsync activate", with
// the connection as standard input.
type Activation struct {
	c        *Container
	listener *net.UnixListener
	accepts  sync.WaitGroup

	mu      sync.Mutex
	running map[*os.Process]bool
	printed bytes.Buffer
	served  int
}

// ActivationSocket is where the container's activation service listens, if it has one.
func (c *Container) ActivationSocket() string { return filepath.Join(c.Dir, "activate.sock") }

// ServeActivation begins to accept.
func (c *Container) ServeActivation() (*Activation, error) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.ActivationSocket(), Net: "unix"})
	if err != nil {
		return nil, err
	}
	a := &Activation{c: c, listener: listener, running: map[*os.Process]bool{}}
	a.accepts.Go(a.accept)
	return a, nil
}

func (a *Activation) accept() {
	for {
		conn, err := a.listener.AcceptUnix()
		if err != nil {
			return
		}
		if err := a.serve(conn); err != nil {
			a.Write([]byte(err.Error() + "\n"))
		}
	}
}

func (a *Activation) serve(conn *net.UnixConn) error {
	defer conn.Close()
	stdin, err := conn.File()
	if err != nil {
		return err
	}
	defer stdin.Close()
	command := exec.Command(a.c.command, "--config", a.c.Config, "activate")
	command.Stdin, command.Stdout, command.Stderr = stdin, a, a
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := command.Start(); err != nil {
		return err
	}
	a.running[command.Process] = true
	a.served++
	a.accepts.Go(func() {
		command.Wait()
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.running, command.Process)
	})
	return nil
}

// Write keeps what services print.
func (a *Activation) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.printed.Write(p)
}

// Printed is what services printed.
func (a *Activation) Printed() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.printed.String()
}

// Served is how many services were started, and Running how many of them run.
func (a *Activation) Served() (served, running int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.served, len(a.running)
}

// Signal sends a signal to each service that runs.
func (a *Activation) Signal(s os.Signal) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for p := range a.running {
		errs = append(errs, p.Signal(s))
	}
	return errors.Join(errs...)
}

// Close ends it, and each service.
func (a *Activation) Close() {
	a.listener.Close() // which removes the socket
	a.Signal(syscall.SIGTERM)
	a.accepts.Wait()
}

// campaign is the YAML of options.Campaign, with the activation socket where there is one.
func (c *Container) campaign() string {
	if !c.options.Outside {
		return c.options.Campaign
	}
	text := c.options.Campaign
	if !strings.Contains(text, "activate: {") {
		text = strings.TrimSuffix("activate: {}, "+text, ", ")
	}
	return strings.Replace(text, "activate: {", "activate: {via: socket, socket: "+c.ActivationSocket()+", ", 1)
}
