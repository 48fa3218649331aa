package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/sync/state"
)

// Whoever may write the state directory could say what has to be in the configuration file.
func TestStateDirectoryOfOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []os.FileMode{0o777, 0o770 | os.ModeSticky, 0o722} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := state.Open(dir, 0); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, 41007, -1)); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(dir, 0); err == nil || !strings.Contains(err.Error(), "sudo -u '#41007'") {
		t.Errorf("of another user: %v", err)
	}
}

// A record that is no file must not be waited for.
func TestRecordThatIsAPipeIsNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "prod.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Read(dir).Load("prod"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	dir := t.TempDir()
	first, err := state.Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(dir, 0); !errors.Is(err, state.ErrLocked) {
		t.Fatalf("second daemon: %v", err)
	}
	first.Close()
	second, err := state.Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
