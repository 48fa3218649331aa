package sinks

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/skip"
)

const (
	swapRight   = `<serverconf><shared><ims authIMSTAClientId="right"/></shared></serverconf>`
	swapDrifted = `<serverconf><shared><ims authIMSTAClientId="mallory"/></shared></serverconf>`
)

var swapWanted = credential.Attributes{{Name: attrClientID, Value: "right"}}

// A link is followed within its directory only, also when it says so with the whole path.
func TestLinkWithTheWholePath(t *testing.T) {
	c := newCampaign(t)
	real := filepath.Join(filepath.Dir(c.file), "real.xml")
	if err := errors.Join(os.Remove(c.file), os.WriteFile(real, []byte(swapDrifted), 0o640), os.Symlink(real, c.file)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Restore(t.Context(), swapWanted); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(c.file); err != nil || target != real || c.content() != swapRight {
		t.Errorf("the link leads to %q, %v, where %q is", target, err, c.content())
	}
	c.wantClean()
}

// A file that seems to be huge is refused, and does not take all memory.
func TestHugeFileIsRefused(t *testing.T) {
	c := newCampaign(t)
	if err := os.Truncate(c.file, 1<<40); err != nil {
		skip.Unable(t, "the file system has no files that large: "+err.Error())
	}
	if _, err := c.Look(t.Context()); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("error is %v", err)
	}
}
