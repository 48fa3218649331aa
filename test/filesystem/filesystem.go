// Package filesystem makes the file systems that Campaign's hosts have: on a loop device, in memory, or laid over another. It needs root.
package filesystem

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/skip"
)

// Kinds are all that there are. "overlay" is over ext4, as a container's image is.
var Kinds = []string{"ext4", "xfs", "btrfs", "tmpfs", "overlay"}

// New mounts a file system for a test, and returns its directory. files, by name, are there from the start; in an overlay they are in the
// lower layer.
func New(t testing.TB, kind string, files map[string]string) (dir string) {
	t.Helper()
	top, err := os.MkdirTemp("", "credsync-fs-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, unmount, err := Mount(top, kind, files)
	t.Cleanup(unmount)
	if errors.Is(err, errCannot) {
		skip.Unable(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// errCannot says that the machine lacks something.
var errCannot = errors.New("no such file system can be made here")

// Mount makes a file system below top, a directory of the caller's. unmount is never nil.
func Mount(top, kind string, files map[string]string) (dir string, unmount func(), err error) {
	m := &mounts{top: top}
	defer func() { unmount = m.unmount }()
	switch {
	case os.Geteuid() != 0:
		return "", nil, fmt.Errorf("%w: mounting needs root", errCannot)
	case kind == "overlay":
		dir, err = m.overlay(files)
	default:
		if dir, err = m.plain(kind); err == nil {
			err = fill(dir, files)
		}
	}
	return dir, nil, err
}

type mounts struct {
	top  string
	dirs []string // mount points
}

// unmount also works while a process that is about to end has files open.
func (m *mounts) unmount() {
	for _, dir := range slices.Backward(m.dirs) {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}

func (m *mounts) plain(kind string) (dir string, err error) {
	if kind == "tmpfs" {
		return m.mount(kind, "tmpfs", "mode=0755")
	}
	image := filepath.Join(m.top, kind+".image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return "", err
	}
	if err := os.Truncate(image, 320<<20); err != nil { // the least that mkfs.xfs takes is 300 MiB
		return "", err
	}
	quiet := map[string]string{"ext4": "-qF", "xfs": "-qf", "btrfs": "-qf"}[kind]
	if err := run("mkfs."+kind, quiet, image); err != nil {
		return "", err
	}
	return m.mount(kind, image, "loop")
}

func (m *mounts) overlay(files map[string]string) (dir string, err error) {
	below, err := m.plain("ext4")
	if err != nil {
		return "", err
	}
	layer := func(name string) string { return filepath.Join(below, name) }
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(layer(name), 0o755); err != nil {
			return "", err
		}
	}
	if err := fill(layer("lower"), files); err != nil {
		return "", err
	}
	return m.mount("overlay", "overlay", fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", layer("lower"), layer("upper"), layer("work")))
}

func (m *mounts) mount(kind, source, options string) (dir string, err error) {
	dir = filepath.Join(m.top, kind)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if err := run("mount", "-t", kind, "-o", options, source, dir); err != nil {
		return "", err
	}
	m.dirs = append(m.dirs, dir)
	return dir, os.Chmod(dir, 0o755)
}

func fill(dir string, files map[string]string) error {
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640); err != nil {
			return err
		}
	}
	return nil
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: %w: %s", errCannot, name, err, out)
	}
	return nil
}
