package faults_test

import (
	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/world"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A file or directory that everybody may write is reported, once.
func TestRightsAreReportedOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		path func(*world.World) string
	}{
		{"file", func(w *world.World) string { return w.File("prod") }},
		{"directory", func(w *world.World) string { return filepath.Dir(w.File("prod")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{})
			path := c.path(w)
			info, err := os.Stat(path)
			w.Must(err)
			warnings := func() int { return strings.Count(w.Log(), `everybody may write this`) }
			if warnings() != 0 {
				t.Errorf("reported though all is well\n%s", w.Log())
			}
			w.Must(os.Chmod(path, info.Mode()|0o002))
			for range 3 {
				w.Pass()
				w.Blank("prod")
				w.Is("prod", "in_sync")
			}
			if warnings() != 1 || !strings.Contains(w.Log(), "path="+path) {
				t.Errorf("reported %d times\n%s", warnings(), w.Log())
			}
			if now, err := os.Stat(path); err != nil || now.Mode() != info.Mode()|0o002 {
				t.Errorf("its mode was changed to %v, %v", now.Mode(), err)
			}
		})
	}
}

// A link within the directory is followed, and stays a link.
func TestLinkInItsDirectory(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	real := filepath.Join(filepath.Dir(w.File("prod")), "real.xml")
	w.Conf = append(w.Conf, "real.xml")
	w.Must(os.Rename(w.File("prod"), real))
	w.Must(os.Symlink("real.xml", w.File("prod")))
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	for _, path := range []string{w.File("prod"), real} {
		document := w.Read("prod")
		wrong := world.Replaced(t, document, w.Attribute("prod", "authIMSTAClientSecret"), "")
		w.Must(os.WriteFile(path, wrong, 0o640))
		w.OnDisk("prod", secret)
		w.Is("prod", "in_sync")
	}
	w.Must(editors.Write(real, editors.Rename, world.Replaced(t, w.Read("prod"), w.Attribute("prod", "authIMSTAClientSecret"), "")))
	w.OnDisk("prod", secret)
	if target, err := os.Readlink(w.File("prod")); err != nil || target != "real.xml" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	w.Ran(1, "end", "set")
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
				w.Is("prod", "drift", "no space left on device")
			} else {
				version, _ = w.NewSecret("prod")
				w.Is("prod", "pending", "no space left on device")
				w.Holds("prod", first)
				w.Ran(1, "start", "set") // nothing is begun that could not be remembered
			}
			w.Must(os.Remove(ballast))
			w.Pass()
			w.InSync(version)
		})
	}
}
