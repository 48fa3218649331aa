package sinks

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/standin"
)

const (
	swapRight   = `<serverconf><shared><ims authIMSTAClientId="right"/></shared></serverconf>`
	swapDrifted = `<serverconf><shared><ims authIMSTAClientId="mallory"/></shared></serverconf>`
)

var swapWanted = credential.Attributes{{Name: attrClientID, Value: "right"}}

// The name of a copy can be foretold. What lies in wait there is neither followed nor removed, it is told of once, and drift
// is put back all the same.
func TestLinkAtTheNameOfACopy(t *testing.T) {
	for _, x := range []struct {
		name  string
		plant func(outside, path string) error
	}{
		{"symbolic link", os.Symlink},
		{"directory", func(_, path string) error { return os.Mkdir(path, 0o755) }},
		{"FIFO", func(_, path string) error { return unix.Mkfifo(path, 0o640) }},
		{"hard link", os.Link},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCampaign(t)
			log := c.logged()
			outside := filepath.Join(filepath.Dir(filepath.Dir(c.file)), "outside")
			name := filepath.Join(filepath.Dir(c.file), copyName("config-prod.xml", []byte(swapDrifted), []byte(swapRight)))
			if err := errors.Join(os.WriteFile(outside, []byte(swapDrifted), 0o640), x.plant(outside, name)); err != nil {
				t.Fatal(err)
			}
			before, planted := standin.StateOf(t, outside), inodeOf(t, name)
			for range 2 {
				if err := os.WriteFile(c.file, []byte(swapDrifted), 0o640); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Restore(t.Context(), swapWanted); err != nil || c.content() != swapRight {
					t.Errorf("restored to %q, %v", c.content(), err)
				}
				c.Wait(context.Background())
			}
			if after := standin.StateOf(t, outside); after != before || inodeOf(t, name) != planted {
				t.Errorf("outside, %+v became %+v", before, after)
			}
			if got := log.String(); strings.Count(got, "left alone") != 1 || !strings.Contains(got, name) {
				t.Errorf("told:\n%s", got)
			}
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			c.wantClean()
		})
	}
}

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
