package faults_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/world"
)

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

// A link that leads out of the directory is refused, at the start and when it comes later: what it leads to is not touched,
// and no nlserver is sent there.
func TestLinkOutOfItsDirectory(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	outside := w.Path("outside.xml")
	w.Run("cp", "-p", w.File("prod"), outside)
	document := world.Replaced(t, w.Read("prod"), w.Attribute("prod", "authIMSTAClientSecret"), "")
	w.Must(os.WriteFile(outside, document, 0o640))
	w.Must(os.Rename(w.File("prod"), w.Path("aside.xml")))
	w.Must(os.Symlink(outside, w.File("prod")))
	w.Is("prod", "degraded/file_unreadable", "leads out of its directory", "config_file")
	_, secret := w.NewSecret("prod")
	w.Pass()
	w.Kill()
	w.StartDaemon()
	w.Is("prod", "degraded", "leads out of its directory")
	if got, err := os.ReadFile(outside); err != nil || string(got) != string(document) {
		t.Errorf("the file outside was written, %v", err)
	}
	w.Ran(1, "start", "set")
	w.Must(os.Rename(w.Path("aside.xml"), w.File("prod")))
	w.Must(os.Remove(outside))
	w.InSync(2)
	w.Holds("prod", secret)
}

// A file with a second name keeps it: drift is put back by nlserver, which writes in place.
func TestHardLink(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	second := filepath.Join(filepath.Dir(w.File("prod")), "second-name.xml")
	w.Conf = append(w.Conf, "second-name.xml")
	w.Must(os.Link(w.File("prod"), second))
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.Is("prod", "in_sync")
	var one, other unix.Stat_t
	w.Must(unix.Stat(w.File("prod"), &one))
	w.Must(unix.Stat(second, &other))
	if one.Ino != other.Ino {
		t.Error("the two names were parted")
	}
	world.Says(t, w.Log(), "has 2 names (hard links)")
	w.Ran(2, "end", "set")
}

// A directory that is mounted read-only: nothing can be written, that is said, and the mend is noticed.
func TestReadOnlyMount(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w, _ := world.Started(t, container.Options{})
	dir := filepath.Dir(w.File("prod"))
	// The directory becomes a mount of itself while the daemon runs, with the drift in it.
	w.Signal(unix.SIGSTOP)
	w.Run("mount", "--bind", dir, dir)
	w.Last = append(w.Last, func() { unix.Unmount(dir, unix.MNT_DETACH) })
	w.Blank("prod")
	w.Run("mount", "-o", "remount,bind,ro", dir)
	w.Signal(unix.SIGCONT)
	w.Is("prod", "drift/drift_stuck", "read-only file system")
	version, secret := w.NewSecret("prod")
	w.Pass()
	w.Run("mount", "-o", "remount,bind,rw", dir)
	w.Pass()
	w.InSync(version)
	w.Holds("prod", secret)
}
