package login_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources/vault"
)

// putSealer puts a script in the place of systemd-creds.
func putSealer(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "systemd-creds"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

// A systemd-creds that does not do what it should is not relied on: the secret-id is kept all the same.
func TestSealerThatCannotBeReliedOn(t *testing.T) {
	for name, script := range map[string]string{
		"fails":                   "echo canary-of-the-sealer >&2; exit 1",
		"says yes to everything":  "exit 0",
		"opens as something else": "echo sealed",
		"opens nothing":           `case "$*" in *encrypt*) echo sealed;; *) exit 1;; esac`,
		"never ends":              "sleep 60 & wait",
	} {
		t.Run(name, func(t *testing.T) {
			putSealer(t, script)
			l := newWrappedLab(t)
			l.MustPoll(l.KV(l.Vault()), always)
			if !strings.Contains(l.Log.String(), "kept in state_dir for this user only, as systemd-creds does not seal here") {
				t.Errorf("said: %s", l.Log)
			}
			l.MustPoll(l.KV(l.Vault()), always)
			if got := unwraps(l.Proxy.Requests()); got != 1 {
				t.Errorf("unwrapped %d times, want 1", got)
			}
		})
	}
}

// What is sealed goes through pipes, never through arguments, and its file does not show the secret-id. The environment is not passed on.
func TestSealer(t *testing.T) {
	arguments := filepath.Join(t.TempDir(), "arguments")
	t.Setenv("NOTIFY_SOCKET", "/of/the/daemon")
	putSealer(t, `test -z "$NOTIFY_SOCKET" || exit 1; echo "$@" >>`+arguments+`; exec base64 $(case "$*" in *decrypt*) echo -d;; esac)`)
	l := newWrappedLab(t)
	l.MustPoll(l.KV(l.Vault()), always)
	if !strings.Contains(l.Log.String(), "sealed by systemd-creds") {
		t.Errorf("said: %s", l.Log)
	}
	content, err := os.ReadFile(filepath.Join(l.Config.StateDir, keptFile))
	if err != nil || strings.Contains(string(content), `"secret_id"`) || !strings.Contains(string(content), `"sealed_key"`) {
		t.Errorf("not sealed: %v", err)
	}
	said, err := os.ReadFile(arguments)
	if err != nil || strings.Count(string(said), "\n") != 2 {
		t.Errorf("called with %q, %v", said, err)
	}
	for line := range strings.Lines(string(said)) {
		for _, word := range strings.Fields(line) {
			if !strings.HasPrefix(word, "-") && word != "encrypt" && word != "decrypt" {
				t.Errorf("an argument is %q", word)
			}
		}
	}

	// Where it is gone, what is sealed cannot be had, and that is said; the next wrapped secret-id mends it.
	t.Setenv("PATH", "/nowhere")
	v := l.Vault()
	kv := l.KV(v)
	l.MustFail(kv, "cannot be unsealed", "put a new wrapped secret-id there")
	reads := l.Config
	reads.MakeStateDir = l.stateDir
	reader, err := vault.New(reads)
	if err != nil {
		t.Fatal(err)
	}
	l.MustFail(l.KV(reader), "cannot be unsealed", "as the daemon's user")
	l.Wrap(time.Hour)
	l.MustPoll(kv, always)
}

// A stop does not wait for a systemd-creds that hangs. Nothing is spent then, and nothing is taken for what it is not: the next
// start unwraps, and seals.
func TestStopWhileSealing(t *testing.T) {
	begun := filepath.Join(t.TempDir(), "begun")
	putSealer(t, "touch "+begun+"; sleep 60 & wait")
	l := newWrappedLab(t)
	v := l.Vault()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	failed := make(chan error, 1)
	go func() {
		_, err := l.KV(v).Poll(ctx, always)
		failed <- err
	}()
	l.Eventually(func() bool { _, err := os.Stat(begun); return err == nil })
	stop()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("fails with %v", err)
	}
	if entries, err := os.ReadDir(l.Config.StateDir); err != nil || len(entries) != 0 {
		t.Errorf("noted: %v, %v", entries, err)
	}
	if l.Log.String() != "" {
		t.Errorf("said: %s", l.Log)
	}
	putSealer(t, `exec base64 $(case "$*" in *decrypt*) echo -d;; esac)`)
	l.MustPoll(l.KV(l.Vault()), always)
	if got := unwraps(l.Proxy.Requests()); got != 1 {
		t.Errorf("unwrapped %d times, want 1", got)
	}
	if !strings.Contains(l.Log.String(), "sealed by systemd-creds") {
		t.Errorf("said: %s", l.Log)
	}
}
