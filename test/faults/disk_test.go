package faults_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// A directory that everybody may write is left alone until it is safe: whoever may plant files there may plant a credential.
func TestDirectoryOpenToEverybody(t *testing.T) {
	t.Parallel()
	for _, bits := range []os.FileMode{0o002, 0o002 | os.ModeSticky} {
		t.Run(bits.String(), func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{})
			dir := filepath.Dir(w.File("prod"))
			info, err := os.Stat(dir)
			w.Must(err)
			w.Must(os.Chmod(dir, info.Mode()|bits))
			w.Is("prod", "degraded/file_unreadable", "everybody may write the directory", "chmod o-w")
			w.Blank("prod")
			_, next := w.NewSecret("prod")
			w.Pass()
			if got := w.Attribute("prod", "authIMSTAClientSecret"); got != "" {
				t.Error("it was written all the same")
			}
			w.Kill() // nor does the next start write
			w.StartDaemon()
			w.Is("prod", "degraded", "everybody may write the directory")
			w.Ran(1, "start", "set")
			w.Must(os.Chmod(dir, info.Mode()))
			w.InSync(2)
			w.Holds("prod", next)
		})
	}
}

// A file that everybody may write is kept right, and its rights are reported, once.
func TestFileOpenToEverybody(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	info, err := os.Stat(w.File("prod"))
	w.Must(err)
	w.Must(os.Chmod(w.File("prod"), info.Mode()|0o002))
	for range 3 {
		w.Pass()
		w.Blank("prod")
		w.OnDisk("prod", secrets["prod"])
		w.Is("prod", "in_sync")
	}
	if n := strings.Count(w.Log(), "everybody may write this"); n != 1 || !strings.Contains(w.Log(), "path="+w.File("prod")) {
		t.Errorf("reported %d times\n%s", n, w.Log())
	}
	if now, err := os.Stat(w.File("prod")); err != nil || now.Mode() != info.Mode()|0o002 {
		t.Errorf("its mode was changed to %v, %v", now.Mode(), err)
	}
}

// A file that is mounted gives no events in its directory; drift is found within seconds all the same, not only at the
// next full check.
func TestMountedFileIsWatched(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{})
	real := w.Path("real.xml")
	w.Run("cp", "-p", w.File("prod"), real)
	w.Run("mount", "--bind", real, w.File("prod"))
	w.Last = append(w.Last, func() { unix.Unmount(w.File("prod"), 0) })
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Blank("prod")
	w.OnDisk("prod", secret)
}

// A disk that is full: the file stays whole, and when there is room again the new credential is applied.
func TestDiskIsFull(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	for _, place := range []string{"conf", "state"} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			dir := map[string]string{"conf": filepath.Join(w.Home, "conf"), "state": w.StateDir()}[place]
			w.Must(os.MkdirAll(dir, 0o700))
			saved := w.Path("saved")
			w.Run("cp", "-a", dir, saved)
			w.Run("mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "tmpfs", dir)
			w.Last = append(w.Last, func() { unix.Unmount(dir, 0) })
			w.Run("cp", "-a", saved+"/.", dir)
			w.Must(os.RemoveAll(saved))
			_, first := w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(1)
			ballast := filepath.Join(dir, "ballast")
			w.Run("sh", "-c", `dd if=/dev/zero of="$1" bs=4096 2>/dev/null; true`, "sh", ballast)
			version := 1
			if place == "conf" {
				w.Blank("prod") // in place, which needs no room
				w.Is("prod", "drift/drift_stuck", "no space left on device")
			} else {
				version, _ = w.NewSecret("prod")
				w.Is("prod", "pending/apply_failed", "no space left on device")
				w.Holds("prod", first)
				w.Blank("prod")
				w.OnDisk("prod", first)
				w.Warns("state_unsaved", false, "prod", "state_dir", "no space left on device")
				w.Ran(1, "start", "set") // nothing is begun that could not be remembered
			}
			w.Must(os.Remove(ballast))
			w.Pass()
			w.InSync(version)
			w.Warns("state_unsaved", true)
		})
	}
}

// A full /run takes the control socket from the daemon and nothing else; it is opened as soon as there is room.
func TestControlSocketHasNoRoom(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w := world.New(t, container.Options{})
	run := w.Path("run")
	w.Must(os.Mkdir(run, 0o700))
	w.Run("mount", "-t", "tmpfs", "-o", "nr_inodes=2,mode=0700", "tmpfs", run)
	w.Last = append(w.Last, func() { unix.Unmount(run, unix.MNT_DETACH) })
	ballast, socket := filepath.Join(run, "ballast"), filepath.Join(run, "control.sock")
	w.Must(os.WriteFile(ballast, nil, 0o600))
	config, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, world.Replaced(t, config, w.Path("control.sock"), socket), 0o600))

	_, secret := w.NewSecret("prod")
	d, err := w.Start(nil)
	w.Must(err)
	w.Running, w.Daemons = d, append(w.Daemons, d)
	w.Logged("level=ERROR", "room for its control socket", "no space left on device")
	w.Logged("msg=activated", "step=reload")
	w.Holds("prod", secret)
	w.Exits(1, "", "status")
	w.Exits(1, "does not answer at control_socket "+socket, "pause", "--for", "1h")
	w.Must(os.Remove(ballast))
	w.Logged("the control socket is open")
	w.Exits(0, "in_sync", "status")
	info, err := os.Stat(socket)
	w.Must(err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the control socket has mode %v", info.Mode())
	}
	w.Stop()
}

// Somebody removes the control socket: another is opened.
func TestControlSocketIsRemoved(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.Must(os.Remove(w.Path("control.sock")))
	w.Exits(1, "no daemon answers", "status")
	w.Logged("the control socket is open")
	w.Exits(0, "in_sync", "status")
	w.Stop()
	if _, err := os.Lstat(w.Path("control.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the stop the socket is there: %v", err)
	}
}
