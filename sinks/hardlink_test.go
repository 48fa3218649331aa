package sinks

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// secondName gives the configuration file another name, in another directory of the file system.
func (c *campaign) secondName() string {
	c.t.Helper()
	other := filepath.Join(c.path, "second-name.xml")
	if err := os.Link(c.file, other); err != nil {
		c.t.Fatal(err)
	}
	return other
}

func (c *campaign) wantOneFile(other string, inode uint64, want string) {
	c.t.Helper()
	for _, path := range []string{c.file, other} {
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil || stat.Ino != inode || stat.Nlink != 2 {
			c.t.Errorf("%s is inode %d with %d names, %v, want %d with 2", path, stat.Ino, stat.Nlink, err, inode)
		}
		content, err := os.ReadFile(path)
		if err != nil || want != "" && string(content) != want {
			c.t.Errorf("%s has %d bytes, %v, want %d", path, len(content), err, len(want))
		}
	}
	c.wantClean()
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Ino
}

// Replacing a file that has two names would part them: a splice is refused, and nlserver writes in place. What nlserver
// damages is put back in place, too.
func TestHardLinksStayTogether(t *testing.T) {
	c := newCampaign(t)
	applied, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil)
	if err != nil {
		t.Fatal(err)
	}
	other, inode := c.secondName(), inodeOf(t, c.file)
	if _, err := c.Restore(t.Context(), applied); err != nil {
		t.Errorf("nothing is to be replaced, yet: %v", err)
	}

	drifted := c.with(credential.Attribute{Name: attrClientID, Value: "mallory"})
	if err := os.WriteFile(c.file, []byte(drifted), 0o640); err != nil {
		t.Fatal(err)
	}
	found, err := c.Restore(t.Context(), applied)
	if !errors.Is(err, credential.ErrCannotSplice) || !strings.Contains(err.Error(), "has 2 names (hard links), replacing it would part them") {
		t.Errorf("error is %v", err)
	}
	if len(credential.Drift(applied, found)) == 0 {
		t.Error("the drift is not told")
	}
	c.wantOneFile(other, inode, drifted)

	if _, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil); err != nil {
		t.Fatal(err)
	}
	c.wantOneFile(other, inode, "")
	whole := c.content()
	for _, fault := range []string{`{"write_half": true, "die": true}`, `{"write_empty": true}`, `{"garbage": true}`} {
		c.faults(fault)
		if _, _, err := c.Apply(t.Context(), newTestCredential(secondSecret), nil); err == nil || !strings.Contains(err.Error(), "was restored") {
			t.Errorf("%s: error is %v", fault, err)
		}
		c.wantOneFile(other, inode, whole)
	}
}

// A crash left a credential half replaced in a file that cannot be replaced: it is put back in place, and does not keep the
// instance from being looked after for good.
func TestRecoverPutsBackAHalfReplacedCredentialInPlace(t *testing.T) {
	c := newCampaign(t)
	if _, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil); err != nil {
		t.Fatal(err)
	}
	whole := c.content()
	half := c.with(credential.Attribute{Name: attrClientSecret, Absent: true})
	if err := errors.Join(os.WriteFile(c.saved, []byte(whole), 0o600), os.WriteFile(c.file, []byte(half), 0o640)); err != nil {
		t.Fatal(err)
	}
	other, inode := c.secondName(), inodeOf(t, c.file)
	if err := c.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen, err := c.Look(t.Context())
	if err != nil || !complete(seen) {
		t.Errorf("the credential is %v, %v", seen, err)
	}
	c.wantOneFile(other, inode, "")
}

// Somebody goes on reading a file that nlserver damages and that cannot be replaced, a log shipper or "less": it is put right in
// place all the same. Only writers are waited for.
func TestReaderDelaysNoRepairInPlace(t *testing.T) {
	c := newCampaign(t)
	if _, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil); err != nil {
		t.Fatal(err)
	}
	whole := c.content()
	other, inode := c.secondName(), inodeOf(t, c.file)
	reader, err := os.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	c.faults(`{"write_half": true, "die": true}`)
	if _, _, err := c.Apply(t.Context(), newTestCredential(secondSecret), nil); err == nil || !strings.Contains(err.Error(), "was restored") {
		t.Errorf("error is %v", err)
	}
	c.wantOneFile(other, inode, whole)
}
