package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"campaign-credsync/test/container"
)

const instance = "prod"

// patience bounds a part. It is for what hangs.
const patience = 2 * time.Minute

// stage is a Campaign container whose story is told to out.
type stage struct {
	*container.Container
	out io.Writer
}

// play starts the daemon, has the scenes played, and stops it.
func (s *stage) play(ctx context.Context, first string, scenes ...func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.title(first)
	daemon, err := s.Start(indented{s.out})
	if err != nil {
		return err
	}
	defer daemon.Kill()
	for _, scene := range scenes {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	s.title("SIGTERM: the daemon ends; what is applied stays")
	began := time.Now()
	if err := daemon.Stop(); err != nil {
		return fmt.Errorf("the daemon ended with: %w", err)
	}
	s.measured("ended", began)
	return nil
}

// applied waits until a version is on disk, with that secret, and activated.
func (s *stage) applied(ctx context.Context, version int, secret string) error {
	if err := s.AwaitSecret(ctx, instance, secret); err != nil {
		return err
	}
	_, err := s.Await(ctx, func(now container.Status) bool { return now.Applied(version) })
	return err
}

// drift blanks the secret and waits until it is back, with every other byte as other left it.
func (s *stage) drift(ctx context.Context, other func([]byte) []byte) error {
	right, err := os.ReadFile(s.File(instance))
	if err != nil {
		return err
	}
	secret, err := container.Attribute(right, "authIMSTAClientSecret")
	if err != nil {
		return err
	}
	want := other(right)
	if err := os.WriteFile(s.File(instance), bytes.Replace(want, []byte(secret), nil, 1), 0o640); err != nil {
		return err
	}
	began := time.Now()
	for {
		now, err := os.ReadFile(s.File(instance))
		if err == nil && bytes.Equal(now, want) {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the hand edit was not put back: %w", ctx.Err())
		case <-time.After(50 * time.Microsecond):
		}
	}
	s.measured("the secret is back, every other byte as the editor left it", began)
	return nil
}

func (s *stage) status(ctx context.Context) error {
	s.title("How it is now")
	stdout, stderr, status := s.Command(ctx, "status")
	fmt.Fprintf(s.out, "  $ campaign-credsync status\n  %s\n", strings.ReplaceAll(strings.TrimSpace(stdout), "\n", "\n  "))
	if status != 0 {
		return fmt.Errorf("status ended with %d: %s", status, stderr)
	}
	return nil
}

func (s *stage) title(text string) { fmt.Fprintf(s.out, "\n== %s\n", text) }

func (s *stage) measured(what string, began time.Time) {
	fmt.Fprintf(s.out, "  -> %s: %.1f ms\n", what, float64(time.Since(began).Microseconds())/1000)
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
