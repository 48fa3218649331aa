// Command demo tells the daemon's story in the terminal, as it happens: the real daemon and a stand-in of nlserver in a temporary
// directory, which is removed at the end. First the credential is in a file, then in a real Vault: the vault or bao of PATH, or
// one that is built.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"campaign-credsync/internal/logging"
	"campaign-credsync/test/container"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := tell(ctx, os.Stdout, os.Getenv("DEMO_VAULT"), logging.IsTerminal(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

// tell tells both parts. choice is DEMO_VAULT; terminal says that somebody sees a build, and can interrupt it.
func tell(ctx context.Context, out io.Writer, choice string, terminal bool) error {
	if err := check(choice); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "campaign-credsync-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(out, "Setting up a Campaign container in", dir)
	fmt.Fprintln(out, "(nlserver is proprietary: a stand-in plays its part; the daemon, its files and Vault are real)")
	var programs container.Programs
	err = interruptible(ctx, func(ctx context.Context) (err error) {
		if programs, err = container.Build(ctx, filepath.Join(dir, "bin"), false); err != nil {
			return err
		}
		return timed(out, "part 1", func() error { return tellFile(ctx, filepath.Join(dir, "file"), programs, out) })
	})
	if err != nil {
		return err
	}
	vault, err := findVault(ctx, out, choice, terminal)
	if err != nil || vault == nil {
		return err
	}
	defer vault.Close()
	return interruptible(ctx, func(ctx context.Context) error {
		return timed(out, "part 2", func() error { return tellVault(ctx, filepath.Join(dir, "vault"), programs, vault, out) })
	})
}

// interruptible ends what is done by ^C too.
func interruptible(ctx context.Context, do func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT)
	defer stop()
	return do(ctx)
}

func timed(out io.Writer, part string, do func() error) error {
	began := time.Now()
	err := do()
	if err == nil {
		fmt.Fprintf(out, "\n(%s took %.1f s)\n", part, time.Since(began).Seconds())
	}
	return err
}
