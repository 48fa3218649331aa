package sinks

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/skip"
)

// Nothing is renamed between the state directory and the file's: they may be on different file systems.
func TestStateOnAnotherFileSystem(t *testing.T) {
	c := newCampaign(t)
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root to mount")
	}
	if err := unix.Mount("tmpfs", c.state, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(c.state, unix.MNT_DETACH) })
	var conf, state unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Dir(c.file), &conf), unix.Stat(c.state, &state)); err != nil || conf.Dev == state.Dev {
		t.Fatal("they are on the same file system", err)
	}
	applied, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil)
	if err != nil {
		t.Fatal(err)
	}
	whole := c.content()
	c.faults(`{"write_half": true, "die": true}`)
	if _, _, err := c.Apply(t.Context(), newTestCredential(secondSecret), nil); err == nil || !strings.Contains(err.Error(), "was restored") {
		t.Errorf("error is %v", err)
	}
	if c.content() != whole {
		t.Error("not put back as it was")
	}
	drifted := c.with(credential.Attribute{Name: attrClientID, Value: "mallory"})
	if err := errors.Join(os.WriteFile(c.saved, []byte(whole), 0o600), os.WriteFile(c.file, []byte(whole[:len(whole)/2]), 0o640), c.Recover(t.Context())); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(c.file, []byte(drifted), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Restore(t.Context(), applied); err != nil || c.content() != whole {
		t.Errorf("not restored: %v", err)
	}
	c.wantClean()
}
