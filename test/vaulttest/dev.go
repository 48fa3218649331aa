package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"campaign-credsync/test/freeport"
)

// LaunchDev starts an installed program, vault or bao, as a development server: in memory, on a port of its own, with a root token of
// its own that no file keeps. The caller must Close it. It cannot be unsealed, as its key is not known.
func LaunchDev(ctx context.Context, program string) (*Server, error) {
	address, err := freeport.Address()
	if err != nil {
		return nil, err
	}
	s := newServer()
	s.Address, s.Token = "http://"+address, rand.Text()
	command := exec.Command(program, "server", "-dev", "-dev-listen-address="+address, "-dev-no-store-token")
	command.Env = devEnvironment(os.Environ(), s.Token)
	// It must not outlive a starter that is killed.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{command: command, stderr: &bytes.Buffer{}, done: make(chan struct{})}
	command.Stdout, command.Stderr = p.stderr, p.stderr
	if err := command.Start(); err != nil {
		return nil, err
	}
	p.stdin = terminated{command.Process}
	go func() {
		p.err = command.Wait()
		close(p.done)
	}()
	s.process = p
	ctx, cancel := context.WithTimeout(ctx, hangs)
	defer cancel()
	if err := s.answers(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s server -dev: %w", program, err), s.Close())
	}
	return s.mounted(ctx)
}

// answers waits until the server takes its root token.
func (s *Server) answers(ctx context.Context) error {
	for {
		if s.Call(ctx, http.MethodGet, "auth/token/lookup-self", nil, nil) == nil {
			return nil
		}
		select {
		case <-s.process.done:
			return errors.New("it ended before it answered")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// devEnvironment leaves out what the caller has set for Vaults of others.
func devEnvironment(all []string, token string) (own []string) {
	for _, variable := range all {
		if !strings.HasPrefix(variable, "VAULT_") && !strings.HasPrefix(variable, "BAO_") {
			own = append(own, variable)
		}
	}
	return append(own, "VAULT_DEV_ROOT_TOKEN_ID="+token, "BAO_DEV_ROOT_TOKEN_ID="+token)
}

// terminated is ended by SIGTERM.
type terminated struct{ process *os.Process }

func (t terminated) Close() error { return t.process.Signal(syscall.SIGTERM) }
