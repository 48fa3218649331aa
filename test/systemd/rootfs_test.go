//go:build systemd

package systemd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// suite is the Debian in the container.
func suite() string {
	if name := os.Getenv("SYSTEMD_TEST_SUITE"); name != "" {
		return name
	}
	return "bookworm"
}

// rootFileSystem returns a directory with a minimal Debian and more of its packages, made by the first test that needs it. It is not to
// be written to.
func rootFileSystem(t *testing.T, more ...string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "campaign-credsync-test")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, strings.Join(append([]string{suite()}, more...), "-"))
	defer lock(t, dir+".lock")()
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	// One that was cut short is told from a finished one by its name.
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		t.Fatal(err)
	}
	t.Logf("making a Debian %s in %s", suite(), dir)
	began := time.Now()
	bootstrap := exec.CommandContext(t.Context(), "debootstrap", "--variant=minbase",
		"--include="+strings.Join(append([]string{"systemd", "systemd-sysv", "dbus"}, more...), ","), suite(), fresh)
	// It mounts /proc and /sys in there. In a mount namespace of its own that ends with it, however it ends, so that the
	// removal above never runs into them.
	bootstrap.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	bootstrap.WaitDelay = 10 * time.Second
	if out, err := bootstrap.CombinedOutput(); err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, tail(string(out), 20))
	}
	// The container shares the network: nothing may listen there that no test starts.
	if err := os.Symlink("/dev/null", filepath.Join(fresh, "etc/systemd/system/ssh.service")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("made in %s", time.Since(began).Round(time.Second))
	return dir
}

// lock waits for the lock of a file, which the kernel drops with the process.
func lock(t *testing.T, path string) (unlock func()) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the lock of "+path, 15*time.Minute, func() bool {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Fatal(err)
		}
		return err == nil
	})
	return func() { file.Close() }
}

func installed(tool string) bool {
	_, err := exec.LookPath(tool)
	return err == nil
}

// installTools installs what is missing of the two packages, where there is an apt-get to do so.
func installTools(t *testing.T, packages ...string) {
	if installed("debootstrap") && installed("systemd-nspawn") {
		return
	}
	if !installed("apt-get") {
		cannot(t, "debootstrap or systemd-nspawn is not installed, and there is no apt-get to install them")
	}
	t.Setenv("DEBIAN_FRONTEND", "noninteractive")
	install := append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, packages...)
	out, err := outside(t, install...)
	if err != nil { // the lists may be missing or old
		outside(t, "apt-get", "update")
		out, err = outside(t, install...)
	}
	if err != nil {
		cannot(t, "apt-get cannot install debootstrap and systemd-container: %v\n%s", err, tail(out, 5))
	}
}

// outside runs a command on the machine itself and returns all that it prints.
func outside(t *testing.T, command ...string) (string, error) {
	c := exec.CommandContext(t.Context(), command[0], command[1:]...)
	c.Dir = repository(t)
	c.WaitDelay = 10 * time.Second
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w", command[0], err)
	}
	return string(out), err
}
