package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
)

// Both parts are told to their end, and no secret shows.
func TestStory(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "credsync-demo-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	programs, err := container.Build(t.Context(), filepath.Join(dir, "bin"), false)
	if err != nil {
		t.Fatal(err)
	}
	for part, tell := range map[string]func(io.Writer) error{
		"file": func(out io.Writer) error {
			return tellFile(t.Context(), filepath.Join(dir, "file"), programs, out)
		},
		"vault": func(out io.Writer) error {
			return tellVault(t.Context(), filepath.Join(dir, "vault"), programs, vaulttest.Start(t), out)
		},
	} {
		var out bytes.Buffer
		if err := tell(&onceAtATime{out: &out}); err != nil {
			t.Fatalf("%s: %v\n%s", part, err, &out)
		}
		if !regexp.MustCompile(`(?m)^  prod +in_sync `).Match(out.Bytes()) {
			t.Errorf("%s does not end in sync:\n%s", part, &out)
		}
		if strings.Contains(out.String(), "p8e-") {
			t.Errorf("%s shows a secret:\n%s", part, &out)
		}
	}
}

// onceAtATime serves the goroutines that tell the story, as a terminal does.
type onceAtATime struct {
	turn sync.Mutex
	out  io.Writer
}

func (o *onceAtATime) Write(text []byte) (int, error) {
	o.turn.Lock()
	defer o.turn.Unlock()
	return o.out.Write(text)
}

func TestBuildsOnlyWhereThatIsSeenOrAsked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		choice   string
		terminal bool
		want     bool
	}{
		{automatic, true, true}, {automatic, false, false}, {build, true, true}, {build, false, true}, {skip, true, false}, {skip, false, false},
	} {
		if got := mayBuild(c.choice, c.terminal); got != c.want {
			t.Errorf("DEMO_VAULT=%q, terminal %v: builds %v", c.choice, c.terminal, got)
		}
	}
	if check("yes") == nil || check(build) != nil || check(skip) != nil || check(automatic) != nil {
		t.Error("another choice than those that are offered is refused, and only that")
	}
}

// What is called vault or bao and is none is said, and the next one is tried.
func TestProgramThatIsNoVault(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"vault", "bao"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho unknown command\nexit 3\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	var out bytes.Buffer
	if s := startInstalled(t.Context(), &out); s != nil {
		t.Error("it started:", s.Address)
	}
	if strings.Count(out.String(), "it ended before it answered") != 2 || !strings.Contains(out.String(), "unknown command") {
		t.Errorf("it says: %s", &out)
	}
}
