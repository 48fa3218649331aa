package control

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/test/logtest"
)

// TestOpenDirectoryIsToldOf: in a directory that others may write, they may answer in the daemon's place.
func TestOpenDirectoryIsToldOf(t *testing.T) {
	for mode, told := range map[os.FileMode]bool{0o755: false, 0o775: true, 0o757: true, 0o777 | os.ModeSticky: false} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		var log logtest.Buffer
		s, err := Listen(filepath.Join(dir, "control.sock"), "", slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if got := strings.Contains(log.String(), "others may replace the control socket"); got != told {
			t.Errorf("mode %v: told of: %t, want %t: %s", mode, got, told, log.String())
		}
	}
}
