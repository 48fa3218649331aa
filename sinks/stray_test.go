package sinks

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/skip"
)

// A stray that cannot come from us is neither put in place nor removed, however well it is named, and does not keep the
// instance from being looked after. It is told of, once.
func TestPlantedStraysAreLeftAlone(t *testing.T) {
	const ours, update = `<serverconf><shared><ims a="2"/></shared></serverconf>`, `<serverconf><shared><ims planted="1"/></shared></serverconf>`
	displaced := copyName("config-prod.xml", []byte("a"), []byte(ours))
	write := func(path string) error { return os.WriteFile(path, []byte(update), 0o640) }
	for _, x := range []struct {
		name, stray, want string
		plant             func(t *testing.T, path string) error
	}{
		{"symbolic link", displaced, "symbolic links", func(t *testing.T, path string) error {
			target := filepath.Join(t.TempDir(), "target")
			return errors.Join(write(target), os.Symlink(target, path))
		}},
		{"directory", displaced, "not a regular file", func(_ *testing.T, path string) error { return os.Mkdir(path, 0o755) }},
		{"FIFO", displaced, "not a regular file", func(_ *testing.T, path string) error { return unix.Mkfifo(path, 0o640) }},
		{"directory as a draft", copyPrefix + "unfinished", "not a regular file",
			func(_ *testing.T, path string) error { return os.Mkdir(path, 0o755) }},
		{"hard link", displaced, "2 names", func(t *testing.T, path string) error {
			return errors.Join(write(path), os.Link(path, filepath.Join(filepath.Dir(filepath.Dir(path)), "other")))
		}},
		{"somebody else's", displaced, "user 12345", func(t *testing.T, path string) error {
			if os.Geteuid() != 0 {
				skip.Unable(t, "needs root to give a file away")
			}
			return errors.Join(write(path), os.Chown(path, 12345, -1))
		}},
		{"root's, which the daemon may not read", displaced, "permission denied", func(_ *testing.T, path string) error {
			return os.WriteFile(path, []byte(update), 0o600)
		}},
		{"root's, which the daemon may not remove", copyPrefix + "unfinished", "permission denied",
			func(_ *testing.T, path string) error { return write(path) }},
		{"20 MiB", displaced, "larger than", func(_ *testing.T, path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte(update), 20<<20/len(update)), 0o640)
		}},
		{"another name", copyPrefix + "backup", "somebody's update",
			func(_ *testing.T, path string) error { return write(path) }},
		{"not well-formed", displaced, "not well-formed", func(_ *testing.T, path string) error { return os.WriteFile(path, []byte("<a"), 0o640) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCampaign(t)
			log := c.logged()
			stray := filepath.Join(filepath.Dir(c.file), x.stray)
			if err := errors.Join(os.WriteFile(c.file, []byte(ours), 0o640), x.plant(t, stray)); err != nil {
				t.Fatal(err)
			}
			before := contents(t, filepath.Dir(c.file))
			as := func(do func()) { do() }
			if strings.HasPrefix(x.name, "root's") {
				as = c.asNobody
			}
			for range 2 {
				var err error
				as(func() { err = c.Recover(t.Context()) })
				if err != nil {
					t.Fatal(err)
				}
			}
			after := contents(t, filepath.Dir(c.file))
			if len(after) != len(before) || after[x.stray] != before[x.stray] || c.content() != ours {
				t.Errorf("left %v\nof %v", after, before)
			}
			if got := log.String(); strings.Count(got, "left alone") != 1 || strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, x.want) {
				t.Errorf("told:\n%s", got)
			}
		})
	}
}

const nobody = 65534

// asNobody does something with the rights of the user nobody, to whom the file and the state belong: what root may do hides what
// the daemon may not.
func (c *campaign) asNobody(do func()) {
	c.t.Helper()
	if os.Geteuid() != 0 {
		skip.Unable(c.t, "needs root to be somebody else")
	}
	err := errors.Join(os.Chown(c.file, nobody, nobody), os.Chown(c.state, nobody, nobody), os.Chmod(filepath.Dir(c.state), 0o755))
	if err != nil {
		c.t.Fatal(err)
	}
	runtime.LockOSThread() // the kernel has it by thread
	defer runtime.UnlockOSThread()
	unix.SetfsgidRetGid(nobody)
	unix.SetfsuidRetUid(nobody)
	defer unix.SetfsuidRetUid(0)
	defer unix.SetfsgidRetGid(0)
	do()
}
