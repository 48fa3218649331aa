package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
)

// A file or directory that everybody may write is reported, once.
func TestRightsAreReportedOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		path func(*world) string
	}{
		{"file", func(w *world) string { return w.File("prod") }},
		{"directory", func(w *world) string { return filepath.Dir(w.File("prod")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, _ := started(t, container.Options{})
			path := c.path(w)
			info, err := os.Stat(path)
			w.must(err)
			warnings := func() int { return strings.Count(w.log(), `everybody may write this`) }
			if warnings() != 0 {
				t.Errorf("reported though all is well\n%s", w.log())
			}
			w.must(os.Chmod(path, info.Mode()|0o002))
			for range 3 {
				w.pass()
				w.blank("prod")
				w.is("prod", "in_sync")
			}
			if warnings() != 1 || !strings.Contains(w.log(), "path="+path) {
				t.Errorf("reported %d times\n%s", warnings(), w.log())
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
	w := newWorld(t, container.Options{})
	real := filepath.Join(filepath.Dir(w.File("prod")), "real.xml")
	w.conf = append(w.conf, "real.xml")
	w.must(os.Rename(w.File("prod"), real))
	w.must(os.Symlink("real.xml", w.File("prod")))
	_, secret := w.rotate("prod")
	w.start()
	w.inSync(1)
	for _, path := range []string{w.File("prod"), real} {
		document := w.read("prod")
		wrong := replaced(t, document, w.attribute("prod", "authIMSTAClientSecret"), "")
		w.must(os.WriteFile(path, wrong, 0o640))
		w.onDisk("prod", secret)
		w.is("prod", "in_sync")
	}
	w.must(editors.Write(real, editors.Rename, replaced(t, w.read("prod"), w.attribute("prod", "authIMSTAClientSecret"), "")))
	w.onDisk("prod", secret)
	if target, err := os.Readlink(w.File("prod")); err != nil || target != "real.xml" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	w.ran(1, "end", "set")
}

// conf/ is put aside and another one takes its place, as an upgrade does.
func TestDirectoryIsReplaced(t *testing.T) {
	t.Parallel()
	w, secrets := started(t, container.Options{})
	conf := filepath.Join(w.Home, "conf")
	w.run("cp", "-a", conf, conf+".new")
	w.must(os.Rename(conf, conf+".old"))
	w.must(os.Rename(conf+".new", conf))
	w.blank("prod")
	w.onDisk("prod", secrets["prod"])
	w.blank("prod")
	w.onDisk("prod", secrets["prod"])
	w.is("prod", "in_sync")
}

// A file that is mounted gives no events in its directory; drift is found within seconds all the same, not only at the
// next full check.
func TestMountedFileIsWatched(t *testing.T) {
	t.Parallel()
	isRoot(t)
	w := newWorld(t, container.Options{})
	real := w.path("real.xml")
	w.run("cp", "-p", w.File("prod"), real)
	w.run("mount", "--bind", real, w.File("prod"))
	w.last = append(w.last, func() { unix.Unmount(w.File("prod"), 0) })
	_, secret := w.rotate("prod")
	w.start()
	w.inSync(1)
	w.blank("prod")
	w.onDisk("prod", secret)
}

// As in production: the daemon is not root, and the files are its own.
func TestDaemonIsNotRoot(t *testing.T) {
	t.Parallel()
	isRoot(t)
	w, secrets := started(t, container.Options{User: 65534})
	w.must(os.Chmod(w.File("prod"), 0o600))
	w.blank("prod")
	w.await("the revert", func(s container.Status) bool { return one(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
	w.holds("prod", secrets["prod"])
	w.ran(1, "end", "set")
	if strings.Contains(w.log(), "level=WARN") {
		t.Errorf("something is not to be had\n%s", w.log())
	}
	_, second := w.rotate("prod")
	w.inSync(2)
	w.holds("prod", second)

	// A file of root's, which it may write: the owner cannot be kept by a splice, so nlserver does it.
	w.must(os.Chown(w.File("prod"), 0, 65534))
	w.must(os.Chmod(w.File("prod"), 0o660))
	w.blank("prod")
	w.await("the revert", func(s container.Status) bool { return one(s, "prod").RevertedTotal == 2 && s.Is("in_sync") })
	w.holds("prod", second)
	var stat unix.Stat_t
	w.must(unix.Stat(w.File("prod"), &stat))
	if stat.Uid != 0 || stat.Gid != 65534 || stat.Mode&0o777 != 0o660 {
		t.Errorf("owner %d:%d, mode %o", stat.Uid, stat.Gid, stat.Mode&0o777)
	}

	// One that it may not even read.
	w.must(os.Chown(w.File("prod"), 0, 0))
	w.must(os.Chmod(w.File("prod"), 0o600))
	w.is("prod", "degraded", "permission denied", w.File("prod"))
	w.must(os.Chown(w.File("prod"), 65534, 65534))
	w.inSync(2)
}

// A disk that is full: the file stays whole, and when there is room again the new credential is applied.
func TestDiskIsFull(t *testing.T) {
	t.Parallel()
	isRoot(t)
	for _, place := range []string{"conf", "state"} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, container.Options{})
			dir := map[string]string{"conf": filepath.Join(w.Home, "conf"), "state": w.StateDir()}[place]
			w.must(os.MkdirAll(dir, 0o700))
			saved := w.path("saved")
			w.run("cp", "-a", dir, saved)
			w.run("mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "tmpfs", dir)
			w.last = append(w.last, func() { unix.Unmount(dir, 0) })
			w.run("cp", "-a", saved+"/.", dir)
			w.must(os.RemoveAll(saved))
			_, first := w.rotate("prod")
			w.start()
			w.inSync(1)
			ballast := filepath.Join(dir, "ballast")
			w.run("sh", "-c", `dd if=/dev/zero of="$1" bs=4096 2>/dev/null; true`, "sh", ballast)
			version := 1
			if place == "conf" {
				w.blank("prod") // in place, which needs no room
				w.is("prod", "drift", "no space left on device")
			} else {
				version, _ = w.rotate("prod")
				w.is("prod", "pending", "no space left on device")
				w.holds("prod", first)
				w.ran(1, "start", "set") // nothing is begun that could not be remembered
			}
			w.must(os.Remove(ballast))
			w.pass()
			w.inSync(version)
		})
	}
}

// The same failure is told once, though nlserver puts the time before each line that it prints, and a login that waits
// tells until when.
func TestSameFailureIsToldOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, state string
		spoil       func(*world)
		mend        func(*world)
	}{
		{"nlserver fails", "pending", func(w *world) { w.faults(`{"fail": "before"}`); w.rotate("prod") }, func(w *world) { w.faults("") }},
		{"activation fails", "activation_pending", func(w *world) { w.faults(`{"reload_fail": true}`); w.rotate("prod") },
			func(w *world) { w.faults("") }},
		{"login fails", "degraded", func(w *world) {
			w.stop()
			w.Proxy.Answer("/login", 503, "Vault is sealed")
			w.start()
		}, func(w *world) { w.Proxy.Forward() }},
		{"Vault is down", "degraded", func(w *world) { w.Proxy.Down() }, func(w *world) { w.must(w.Proxy.Up()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, _ := started(t, container.Options{})
			c.spoil(w)
			w.is("prod", c.state)
			for range 3 {
				time.Sleep(1100 * time.Millisecond) // another second on the clock
				w.signal(syscall.SIGUSR1)
			}
			w.pass()
			told := strings.Count(w.log(), "level=ERROR") + strings.Count(w.log(), "level=WARN")
			if told != 1 {
				t.Errorf("told %d times\n%s", told, w.log())
			}
			c.mend(w)
			w.signal(syscall.SIGUSR1)
			w.is("prod", "in_sync")
		})
	}
}
