// Command demo tells the daemon's story in the terminal, as it happens: a real Vault, the real daemon, and a stand-in of
// nlserver in a temporary directory, which is removed at the end.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"campaign-credsync/test/container"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := tell(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

const instance = "prod"

type demo struct {
	*container.Container
	out io.Writer
}

func tell(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "campaign-credsync-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(out, "Setting up a Campaign container in", dir)
	fmt.Fprintln(out, "(nlserver is proprietary: a stand-in plays its part; Vault and the daemon are real)")
	c, err := container.New(ctx, dir, container.Options{
		Instances: []string{instance},
		Settings:  "watch: {poll: 1s}\nlog: {format: text}\n",
		Progress:  out,
	})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	d := &demo{c, out}
	_, secret, err := c.Rotate(ctx, instance)
	if err != nil {
		return err
	}
	d.title("First apply: the daemon starts, and Vault holds version 1")
	began := time.Now()
	daemon, err := c.Start(indented{out})
	if err != nil {
		return err
	}
	defer daemon.Kill()
	for _, scene := range []func(context.Context) error{
		func(ctx context.Context) error { return d.firstApply(ctx, began, secret) },
		d.rotation, d.handEdit, d.vaultGone, d.vaultBack, d.status,
	} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	d.title("SIGTERM: the daemon revokes its token and ends")
	began = time.Now()
	if err := daemon.Stop(); err != nil {
		return fmt.Errorf("the daemon ended with: %w", err)
	}
	d.measured("ended", began)
	return nil
}

func (d *demo) firstApply(ctx context.Context, began time.Time, secret string) error {
	if err := d.AwaitSecret(ctx, instance, secret); err != nil {
		return err
	}
	if _, err := d.Await(ctx, func(s container.Status) bool { return s.Applied(1) }); err != nil {
		return err
	}
	d.measured("from start to applied and activated", began)
	return nil
}

func (d *demo) rotation(ctx context.Context) error {
	d.title("Rotation: version 2 is written to Vault (polled every second here, every 30 s by default)")
	version, secret, err := d.Rotate(ctx, instance)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := d.AwaitSecret(ctx, instance, secret); err != nil {
		return err
	}
	d.measured("from Vault to the file", began)
	_, err = d.Await(ctx, func(s container.Status) bool { return s.Applied(version) })
	return err
}

func (d *demo) handEdit(ctx context.Context) error {
	d.title("Hand edit: somebody blanks the client secret, and changes the database login")
	return d.drift(ctx, func(document []byte) []byte {
		return bytes.Replace(document, []byte(`login="`), []byte(`login="new-`), 1)
	})
}

// drift blanks the secret and waits until it is back, with every other byte as other left it.
func (d *demo) drift(ctx context.Context, other func([]byte) []byte) error {
	right, err := os.ReadFile(d.File(instance))
	if err != nil {
		return err
	}
	secret, err := container.Attribute(right, "authIMSTAClientSecret")
	if err != nil {
		return err
	}
	want := other(right)
	if err := os.WriteFile(d.File(instance), bytes.Replace(want, []byte(secret), nil, 1), 0o640); err != nil {
		return err
	}
	began := time.Now()
	for {
		now, err := os.ReadFile(d.File(instance))
		if err == nil && bytes.Equal(now, want) {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the hand edit was not put back: %w", ctx.Err())
		case <-time.After(50 * time.Microsecond):
		}
	}
	d.measured("the secret is back, every other byte as the editor left it", began)
	return nil
}

func (d *demo) vaultGone(ctx context.Context) error {
	d.title("Vault gone: connections are refused; another hand edit")
	d.Proxy.Down()
	if _, err := d.Await(ctx, func(s container.Status) bool { return s.Is("degraded") }); err != nil {
		return err
	}
	return d.drift(ctx, func(document []byte) []byte { return document })
}

func (d *demo) vaultBack(ctx context.Context) error {
	d.title("Vault back, with version 3 (retries spread over up to a minute; SIGUSR1 or sync asks at once)")
	version, secret, err := d.Rotate(ctx, instance)
	if err != nil {
		return err
	}
	if err := d.Proxy.Up(); err != nil {
		return err
	}
	began := time.Now()
	stdout, stderr, status := d.Command(ctx, "sync")
	fmt.Fprintf(d.out, "  $ campaign-credsync sync\n  %s", stdout)
	if status != 0 {
		return fmt.Errorf("sync ended with status %d: %s", status, stderr)
	}
	if err := d.AwaitSecret(ctx, instance, secret); err != nil {
		return err
	}
	d.measured("from asking to applied and activated", began)
	_, err = d.Await(ctx, func(s container.Status) bool { return s.Applied(version) })
	return err
}

func (d *demo) status(ctx context.Context) error {
	d.title("How it is now")
	stdout, stderr, status := d.Command(ctx, "status")
	fmt.Fprintf(d.out, "  $ campaign-credsync status\n  %s\n", strings.ReplaceAll(strings.TrimSpace(stdout), "\n", "\n  "))
	if status != 0 {
		return fmt.Errorf("status ended with %d: %s", status, stderr)
	}
	return nil
}

func (d *demo) title(text string) { fmt.Fprintf(d.out, "\n== %s\n", text) }

func (d *demo) measured(what string, began time.Time) {
	fmt.Fprintf(d.out, "  -> %s: %.1f ms\n", what, float64(time.Since(began).Microseconds())/1000)
}

// indented shows the daemon's log beside the story.
type indented struct{ io.Writer }

func (i indented) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if _, err := fmt.Fprintf(i.Writer, "     log | %s", line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
