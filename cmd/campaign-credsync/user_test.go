package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/test/skip"
)

// Root at a prompt must not leave state and log files behind that the daemon's user cannot use.
func TestRootDoesNotDoWhatIsAnotherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Unable(t, "only root can do another user's work")
	}
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	file := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("vault: {address: 'http://127.0.0.1:1', auth: {role_id: r, secret_id_file: %[1]s/s}}\n"+
		"campaign: {home: %[1]s/nl6}\ninstances: [{name: prod, path: p}]\nstate_dir: %[2]s\ncontrol_socket: %[1]s/c.sock\n", dir, state)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "nl6")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"sync", "run"} {
		var stdout, stderr bytes.Buffer
		status := run(context.Background(), []string{"--config", file, command}, &stdout, &stderr, os.LookupEnv)
		if status != exitFailed || !strings.Contains(stderr.String(), "sudo -u '#12345'") {
			t.Errorf("%s: status %d, %s", command, status, &stderr)
		}
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("there is a state directory")
	}
}
