package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
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

// TestWhoMayNotReadTheConfiguration: what the user has to change is the owner or the mode, so both are said.
func TestWhoMayNotReadTheConfiguration(t *testing.T) {
	dir, err := os.MkdirTemp("", "credsync-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable() // is the command when it is called so
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	command, file, closed := filepath.Join(dir, "campaign-credsync"), filepath.Join(dir, "config.yaml"), filepath.Join(dir, "closed")
	err = errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(command, program, 0o755), os.WriteFile(file, nil, 0),
		os.Mkdir(closed, 0), os.Chmod(file, 0o200))
	if err != nil {
		t.Fatal(err)
	}
	me := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // who may read everything
		me.Credential = &syscall.Credential{Uid: 12345, Gid: 12345}
	}
	const mayNotRead = `permission denied: user \S+ may not read it \(mode 0200, owner \S+, group \S+\); make it readable for that user`
	for _, c := range []struct {
		command, path string
		exits         int
		says          string
	}{
		{"validate", file, exitUsage, mayNotRead},
		{"validate", filepath.Join(closed, "c.yaml"), exitUsage, `permission denied: user \S+ may not enter a directory above it; make it readable for that user`},
		{"status", file, exitFailed, `no daemon answers at control_socket .*that is the default socket, .*` + mayNotRead},
		{"history", file, exitUsage, mayNotRead},
	} {
		run := exec.Command(command, "--config", c.path, c.command)
		run.SysProcAttr = me
		output, _ := run.CombinedOutput()
		if run.ProcessState == nil || run.ProcessState.ExitCode() != c.exits || !regexp.MustCompile(c.says).Match(output) {
			t.Errorf("%s: %v: %s", c.command, run.ProcessState, output)
		}
	}
}
