package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/skip"
)

// TestRights: who may write the configuration may have the daemon run anything.
func TestRights(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root to give things away")
	}
	const refused = "refused"
	for _, c := range []struct {
		file, dir os.FileMode
		group     int
		readOnly  bool
		want      string // part of the only warning, or refused
	}{
		{file: 0o640, dir: 0o755, group: 12345},
		{file: 0o664, dir: 0o775}, // the group is root
		{file: 0o642, dir: 0o755, want: refused},
		{file: 0o660, dir: 0o755, group: 12345, want: "its group may write this file (mode 0660)"},
		{file: 0o640, dir: 0o775, group: 12345, want: "others may replace this file"},
		{file: 0o640, dir: 0o757, want: "others may replace this file"},
		{file: 0o640, dir: 0o757 | os.ModeSticky},
		{file: 0o644, dir: 0o777, readOnly: true}, // as a ConfigMap of Kubernetes is
	} {
		t.Run(fmt.Sprintf("%04o in %04o", c.file, c.dir), func(t *testing.T) {
			dir := t.TempDir()
			if c.readOnly {
				if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
					t.Fatal(err)
				}
				defer unix.Unmount(dir, unix.MNT_DETACH)
			}
			file := filepath.Join(dir, "config.yaml")
			err := errors.Join(os.WriteFile(file, fmt.Appendf(nil, goodConfig, ""), 0o600),
				os.Chown(file, 0, c.group), os.Chown(dir, 0, c.group), os.Chmod(file, c.file), os.Chmod(dir, c.dir))
			if c.readOnly {
				err = errors.Join(err, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := Load(file, noEnvironment)
			if got == nil || got.ControlSocket == "" {
				t.Errorf("the control socket is not known: %v", err)
			}
			if c.want == refused {
				var bad Error
				if !errors.As(err, &bad) || !strings.Contains(err.Error(), "everybody may write this file (mode 0642)") {
					t.Errorf("error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := len(got.Warnings); c.want == "" && n > 0 || c.want != "" && (n != 1 || !strings.Contains(got.Warnings[0], c.want)) {
				t.Errorf("warnings %q, want %q", got.Warnings, c.want)
			}
		})
	}
}
