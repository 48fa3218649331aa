package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
)

// managed are the attributes that an apply of the stand-in leaves, as they are in a file.
func (w *world) managed(instance string) map[string]string {
	w.t.Helper()
	values := map[string]string{}
	for _, name := range []string{"authIMSTAClientId", "authIMSTAId", "authIMSTAClientSecret", "authIMSTAPrivateKey"} {
		values[name] = w.attribute(instance, name)
	}
	return values
}

// Whatever changes the credential, and however it writes the file: the attributes are put back, and every other byte is
// as the editor left it.
func TestDriftIsPutBack(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{})
	right := w.managed("prod")
	set := func(name, value string) func([]byte) []byte {
		return func(d []byte) []byte {
			comments, rest := d[:bytes.Index(d, []byte("<ims authIMSClientId"))], d[bytes.Index(d, []byte("<ims authIMSClientId")):]
			rest = replaced(t, rest, fmt.Sprintf(` %s="%s"`, name, right[name]), value)
			return append(bytes.Clone(comments), rest...)
		}
	}
	drop := func(name string) func([]byte) []byte { return set(name, "") }
	element := regexp.MustCompile(`(?s)\s*<ims authIMSClientId=.*?/>`)
	reverts := 0
	for _, c := range []struct {
		name  string
		style editors.Style
		edit  func([]byte) []byte
	}{
		{"in place", editors.InPlace, set("authIMSTAClientSecret", ` authIMSTAClientSecret="@bm90IGl0"`)},
		{"in pieces", editors.Pieces, set("authIMSTAClientSecret", ` authIMSTAClientSecret="@bm90IGl0"`)},
		{"renamed over", editors.Rename, set("authIMSTAClientSecret", ` authIMSTAClientSecret="@bm90IGl0"`)},
		{"deleted and created", editors.Recreate, set("authIMSTAClientSecret", ` authIMSTAClientSecret="@bm90IGl0"`)},
		{"client id", editors.InPlace, set("authIMSTAClientId", ` authIMSTAClientId="mallory"`)},
		{"account", editors.InPlace, set("authIMSTAId", ` authIMSTAId="mallory@techacct.adobe.com"`)},
		{"empty secret", editors.InPlace, set("authIMSTAClientSecret", ` authIMSTAClientSecret=""`)},
		{"empty id", editors.Rename, set("authIMSTAClientId", ` authIMSTAClientId=""`)},
		{"secret removed", editors.InPlace, drop("authIMSTAClientSecret")},
		{"id removed", editors.InPlace, drop("authIMSTAClientId")},
		{"all removed", editors.InPlace, func(d []byte) []byte {
			for name := range right {
				if right[name] != "" {
					d = drop(name)(d)
				}
			}
			return d
		}},
		{"a key that was not there", editors.InPlace, func(d []byte) []byte {
			return replaced(t, d, ` authIMSTAId="`, ` authIMSTAPrivateKey="@a2V5" authIMSTAId="`)
		}},
		{"an empty key", editors.InPlace, func(d []byte) []byte {
			return replaced(t, d, ` authIMSTAId="`, ` authIMSTAPrivateKey='' authIMSTAId="`)
		}},
		{"ims removed", editors.Pieces, func(d []byte) []byte { return element.ReplaceAll(d, nil) }},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			w.in(t)
			document := replaced(t, c.edit(w.read("prod")), `maxMB="`, `maxMB="1`)
			w.foreign["prod"] = foreign(document)
			if err := editors.Write(w.File("prod"), c.style, document); err != nil {
				t.Fatal(err)
			}
			reverts++
			w.await("the revert is counted", func(s container.Status) bool {
				return one(s, "prod").RevertedTotal == reverts && s.Is("in_sync")
			})
			if got := w.managed("prod"); fmt.Sprint(got) != fmt.Sprint(right) {
				t.Errorf("attributes are %v, want %v", got, right)
			}
			if bytes.Contains(w.read("prod"), []byte("authIMSTAPrivateKey")) {
				t.Error("the key is still there")
			}
			if got := foreign(w.read("prod")); !bytes.Equal(got, w.foreign["prod"]) {
				t.Error("foreign bytes changed: ", firstDifference(w.foreign["prod"], got))
			}
		})
		w.in(t)
		if !ok {
			return
		}
	}
	w.ran(1, "end", "set")
}

// What is no drift is left alone: not a byte is written.
func TestEditsElsewhereAreLeftAlone(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{})
	file := w.File("prod")
	stat := func() (s unix.Stat_t) {
		if err := unix.Stat(file, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"in place", func() error {
			w.edits("prod", func(d []byte) []byte { return replaced(t, d, `maxMB="512"`, `maxMB="768"`) })
			return nil
		}},
		{"renamed over", func() error {
			d := replaced(t, w.read("prod"), `maxMB="768"`, `maxMB="1024"`)
			w.foreign["prod"] = foreign(d)
			return editors.Write(file, editors.Rename, d)
		}},
		{"other attributes of ims", func() error {
			w.edits("prod", func(d []byte) []byte { return replaced(t, d, `authIMSCode="@YW5`, `authIMSCode="@YW6`) })
			return nil
		}},
		{"other quotes and order", func() error {
			id := `authIMSTAId="` + w.attribute("prod", "authIMSTAId") + `"`
			w.edits("prod", func(d []byte) []byte {
				d = replaced(t, d, " "+id, "")
				return replaced(t, d, `<ims authIMSClientId`, `<ims `+strings.ReplaceAll(id, `"`, `'`)+` authIMSClientId`)
			})
			return nil
		}},
		{"chmod", func() error { return os.Chmod(file, 0o604) }},
		{"chown", func() error {
			if os.Geteuid() != 0 {
				return nil
			}
			return os.Chown(file, 12345, 23456)
		}},
		{"xattr", func() error { return unix.Setxattr(file, "user.campaign", []byte("kept"), 0) }},
		{"touched", func() error { return os.Chtimes(file, time.Time{}, time.Now()) }},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		before := stat()
		if s := w.pass(); !s.Is("in_sync") || one(s, "prod").RevertedTotal != 0 {
			t.Fatalf("%s: %+v\n%s", c.name, s, w.log())
		}
		if after := stat(); before.Ino != after.Ino || before.Mtim != after.Mtim || before.Ctim != after.Ctim {
			t.Errorf("%s: the file was written", c.name)
		}
	}
	// And a revert keeps all of it.
	before := stat()
	w.blank("prod")
	w.await("the revert", func(s container.Status) bool { return one(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
	after := stat()
	if before.Uid != after.Uid || before.Gid != after.Gid || before.Mode != after.Mode {
		t.Errorf("owner or mode changed from %d:%d %o to %d:%d %o", before.Uid, before.Gid, before.Mode, after.Uid, after.Gid, after.Mode)
	}
	value := make([]byte, 16)
	if n, err := unix.Getxattr(file, "user.campaign", value); err != nil || string(value[:n]) != "kept" {
		t.Errorf("the extended attribute is %q, %v", value[:max(n, 0)], err)
	}
	w.ran(1, "end", "set")
}

// An attribute whose place is not documented is learned from what nlserver wrote, and guarded as the others are. What
// nlserver writes anew around it is no drift.
func TestLearnedAttributeIsGuarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{})
	w.faults(`{"org_attribute": "authIMSOrgId", "reformat": true, "deterministic": true}`)
	_, secret := w.rotate("prod")
	w.start()
	w.inSync(1)
	w.holds("prod", secret)
	w.foreign["prod"] = foreign(w.read("prod"))
	org := w.attribute("prod", "authIMSOrgId")
	w.edits("prod", func(d []byte) []byte { return replaced(t, d, org, "mallory@AdobeOrg") })
	w.foreign["prod"] = replaced(t, w.foreign["prod"], "mallory@AdobeOrg", org)
	w.await("the revert", func(s container.Status) bool { return one(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
	if got := w.attribute("prod", "authIMSOrgId"); got != org || org == "" {
		t.Errorf("the org id is %q, want %q", got, org)
	}
	if s := w.pass(); one(s, "prod").RevertedTotal != 1 {
		t.Errorf("%+v", s)
	}
}

// drift.revert: nlserver applies again; also where a splice cannot work.
func TestDriftIsAppliedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		settings string
		prepare  func(*world)
		drift    func(*world)
		says     string
	}{
		{"by configuration", "drift: {revert: nlserver}", nil, func(w *world) { w.blank("prod") }, ""},
		{"shared removed", "", nil, func(w *world) {
			shared := regexp.MustCompile(`(?s)\s*<shared>.*</shared>`)
			d := shared.ReplaceAll(w.read("prod"), nil)
			if err := os.WriteFile(w.File("prod"), d, 0o640); err != nil {
				w.t.Fatal(err)
			}
		}, "drift cannot be put back into the file, applying again instead"},
		{"mount point", "", func(w *world) {
			isRoot(w.t)
			real := w.path("real.xml")
			w.run("cp", "-p", w.File("prod"), real)
			w.run("mount", "--bind", real, w.File("prod"))
			w.last = append(w.last, func() { unix.Unmount(w.File("prod"), 0) })
		}, func(w *world) { w.blank("prod") }, "mount point"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, container.Options{Settings: c.settings})
			if c.prepare != nil {
				c.prepare(w)
			}
			_, secret := w.rotate("prod")
			w.start()
			w.inSync(1)
			c.drift(w)
			if c.name == "mount point" {
				w.pass() // inotify tells nothing of what is done to the file below a mount
			}
			w.await("the revert", func(s container.Status) bool { return one(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
			w.holds("prod", secret)
			w.ran(2, "end", "set")
			w.ran(2, "end", "reload")
			says(t, w.log(), c.says)
			if c.name == "shared removed" {
				w.foreign["prod"] = foreign(w.read("prod"))
			}
			// It takes Vault, and says so while there is none.
			if c.name != "by configuration" {
				return
			}
			w.Proxy.Down()
			w.blank("prod")
			w.is("prod", "drift", "refused")
			if err := w.Proxy.Up(); err != nil {
				t.Fatal(err)
			}
			w.pass()
			w.inSync(1)
			w.holds("prod", secret)
			w.ran(3, "end", "set")
		})
	}
}

// drift.revert: alert touches nothing, says it once, and sees when it is over.
func TestDriftIsOnlyReported(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{Settings: "drift: {revert: alert}"})
	right := w.read("prod")
	w.edits("prod", func(d []byte) []byte { return replaced(t, d, "0123456789ABCDEF@techacct", "mallory@techacct") })
	wrong := w.read("prod")
	w.is("prod", "drift", "drift.revert: alert")
	w.pass()
	w.is("prod", "drift")
	if !bytes.Equal(w.read("prod"), wrong) {
		t.Error("the file was changed")
	}
	if n := strings.Count(w.log(), "level=ERROR"); n != 1 {
		t.Errorf("%d alarms\n%s", n, w.log())
	}
	stdout, _, status := w.command("diff")
	if status != 3 || !strings.Contains(stdout, "authIMSTAId") || strings.Contains(stdout, "mallory") {
		t.Errorf("diff ended with %d: %s", status, stdout)
	}
	if _, _, status := w.command("status"); status != 3 {
		t.Errorf("status ended with %d", status)
	}
	if err := os.WriteFile(w.File("prod"), right, 0o640); err != nil {
		t.Fatal(err)
	}
	w.is("prod", "in_sync")
	w.ran(1, "end", "set")
}

// A war over the file ends: the brake holds over kill -9 and restart, lets new versions through, and SIGHUP lets go.
func TestDriftWarEnds(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"splice", "nlserver"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, _ := started(t, container.Options{Settings: "drift: {max_reverts: 3, revert: " + mode + "}"})
			for i := range 3 {
				w.blank("prod")
				w.await("the revert", func(s container.Status) bool {
					return one(s, "prod").RevertedTotal == i+1 && s.Is("in_sync")
				})
			}
			sets := w.runs("end", "set")
			w.blank("prod")
			blank := w.read("prod")
			w.is("prod", "drift", "drift.max_reverts")
			w.kill()
			w.start()
			w.is("prod", "drift")
			w.pass()
			w.is("prod", "drift")
			if !bytes.Equal(w.read("prod"), blank) {
				t.Error("the file was changed after the brake")
			}
			if n := strings.Count(w.daemons[0].Log(), "level=ERROR"); n != 1 {
				t.Errorf("%d alarms\n%s", n, w.daemons[0].Log())
			}
			w.ran(sets, "end", "set")

			_, secret := w.rotate("prod")
			w.inSync(2)
			w.holds("prod", secret)
			w.blank("prod")
			w.is("prod", "drift")
			w.signal(syscall.SIGHUP)
			w.await("the revert", func(s container.Status) bool { return s.Is("in_sync") && one(s, "prod").RevertedTotal == 4 })
			w.holds("prod", secret)
		})
	}
}

// Drift that was there before the daemon may have been loaded by Campaign: its revert is followed by activation.
func TestDriftFoundAtStartIsActivated(t *testing.T) {
	t.Parallel()
	w, secrets := started(t, container.Options{})
	w.stop()
	w.blank("prod")
	w.start()
	w.inSync(1)
	w.holds("prod", secrets["prod"])
	w.ran(1, "end", "set")
	w.ran(2, "end", "reload")
}
