package e2e_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/user"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/world"
)

// Whatever changes the credential, and however it writes the file: the attributes are put back, and every other byte is
// as the editor left it.
func TestDriftIsPutBack(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	right := w.Managed("prod")
	set := func(name, value string) func([]byte) []byte {
		return func(d []byte) []byte {
			comments, rest := d[:bytes.Index(d, []byte("<ims authIMSClientId"))], d[bytes.Index(d, []byte("<ims authIMSClientId")):]
			rest = world.Replaced(t, rest, fmt.Sprintf(` %s="%s"`, name, right[name]), value)
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
			return world.Replaced(t, d, ` authIMSTAId="`, ` authIMSTAPrivateKey="@a2V5" authIMSTAId="`)
		}},
		{"an empty key", editors.InPlace, func(d []byte) []byte {
			return world.Replaced(t, d, ` authIMSTAId="`, ` authIMSTAPrivateKey='' authIMSTAId="`)
		}},
		{"ims removed", editors.Pieces, func(d []byte) []byte { return element.ReplaceAll(d, nil) }},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			w.In(t)
			document := world.Replaced(t, c.edit(w.Read("prod")), `maxMB="`, `maxMB="1`)
			w.Foreign["prod"] = world.ForeignBytes(document)
			if err := editors.Write(w.File("prod"), c.style, document); err != nil {
				t.Fatal(err)
			}
			reverts++
			w.AwaitStatus("the revert is counted", func(s container.Status) bool {
				return world.One(s, "prod").RevertedTotal == reverts && s.Is("in_sync")
			})
			if got := w.Managed("prod"); fmt.Sprint(got) != fmt.Sprint(right) {
				t.Errorf("attributes are %v, want %v", got, right)
			}
			if bytes.Contains(w.Read("prod"), []byte("authIMSTAPrivateKey")) {
				t.Error("the key is still there")
			}
			if got := world.ForeignBytes(w.Read("prod")); !bytes.Equal(got, w.Foreign["prod"]) {
				t.Error("foreign bytes changed: ", world.FirstDifference(w.Foreign["prod"], got))
			}
		})
		w.In(t)
		if !ok {
			return
		}
	}
	w.Ran(1, "end", "set")
}

// What is no drift is left alone: not a byte is written.
func TestEditsElsewhereAreLeftAlone(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
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
			w.Edits("prod", func(d []byte) []byte { return world.Replaced(t, d, `maxMB="512"`, `maxMB="768"`) })
			return nil
		}},
		{"renamed over", func() error {
			d := world.Replaced(t, w.Read("prod"), `maxMB="768"`, `maxMB="1024"`)
			w.Foreign["prod"] = world.ForeignBytes(d)
			return editors.Write(file, editors.Rename, d)
		}},
		{"other attributes of ims", func() error {
			w.Edits("prod", func(d []byte) []byte { return world.Replaced(t, d, `authIMSCode="@YW5`, `authIMSCode="@YW6`) })
			return nil
		}},
		{"other quotes and order", func() error {
			id := `authIMSTAId="` + w.Attribute("prod", "authIMSTAId") + `"`
			w.Edits("prod", func(d []byte) []byte {
				d = world.Replaced(t, d, " "+id, "")
				return world.Replaced(t, d, `<ims authIMSClientId`, `<ims `+strings.ReplaceAll(id, `"`, `'`)+` authIMSClientId`)
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
		if s := w.Pass(); !s.Is("in_sync") || world.One(s, "prod").RevertedTotal != 0 {
			t.Fatalf("%s: %+v\n%s", c.name, s, w.Log())
		}
		if after := stat(); before.Ino != after.Ino || before.Mtim != after.Mtim || before.Ctim != after.Ctim {
			t.Errorf("%s: the file was written", c.name)
		}
	}
	// And a revert keeps all of it.
	before := stat()
	w.Blank("prod")
	w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
	after := stat()
	if before.Uid != after.Uid || before.Gid != after.Gid || before.Mode != after.Mode {
		t.Errorf("owner or mode changed from %d:%d %o to %d:%d %o", before.Uid, before.Gid, before.Mode, after.Uid, after.Gid, after.Mode)
	}
	value := make([]byte, 16)
	if n, err := unix.Getxattr(file, "user.campaign", value); err != nil || string(value[:n]) != "kept" {
		t.Errorf("the extended attribute is %q, %v", value[:max(n, 0)], err)
	}
	w.Ran(1, "end", "set")
}

// An attribute whose place is not documented is learned from what nlserver wrote, and guarded as the others are. What
// nlserver writes anew around it is no drift.
func TestLearnedAttributeIsGuarded(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	w.Faults(`{"org_attribute": "authIMSOrgId", "reformat": true, "deterministic": true}`)
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Holds("prod", secret)
	w.Foreign["prod"] = world.ForeignBytes(w.Read("prod"))
	org := w.Attribute("prod", "authIMSOrgId")
	w.Edits("prod", func(d []byte) []byte { return world.Replaced(t, d, org, "mallory@AdobeOrg") })
	w.Foreign["prod"] = world.Replaced(t, w.Foreign["prod"], "mallory@AdobeOrg", org)
	w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
	if got := w.Attribute("prod", "authIMSOrgId"); got != org || org == "" {
		t.Errorf("the org id is %q, want %q", got, org)
	}
	if s := w.Pass(); world.One(s, "prod").RevertedTotal != 1 {
		t.Errorf("%+v", s)
	}
}

// drift.revert: nlserver applies again; also where a splice cannot work.
func TestDriftIsAppliedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		settings string
		prepare  func(*world.World)
		drift    func(*world.World)
		says     string
	}{
		{"by configuration", "drift: {revert: nlserver}", nil, func(w *world.World) { w.Blank("prod") }, ""},
		{"shared removed", "", nil, func(w *world.World) {
			shared := regexp.MustCompile(`(?s)\s*<shared>.*</shared>`)
			d := shared.ReplaceAll(w.Read("prod"), nil)
			if err := os.WriteFile(w.File("prod"), d, 0o640); err != nil {
				w.T.Fatal(err)
			}
		}, "drift cannot be reverted by a splice, applying again instead"},
		{"mount point", "", func(w *world.World) {
			world.NeedsRoot(w.T)
			real := w.Path("real.xml")
			w.Run("cp", "-p", w.File("prod"), real)
			w.Run("mount", "--bind", real, w.File("prod"))
			w.Last = append(w.Last, func() { unix.Unmount(w.File("prod"), 0) })
		}, func(w *world.World) { w.Blank("prod") }, "mount point"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{Settings: c.settings})
			if c.prepare != nil {
				c.prepare(w)
			}
			_, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(1)
			c.drift(w)
			if c.name == "mount point" {
				w.Pass() // inotify tells nothing of what is done to the file below a mount
			}
			w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
			w.Holds("prod", secret)
			w.Ran(2, "end", "set")
			w.Ran(2, "end", "reload")
			world.Says(t, w.Log(), c.says)
			if c.name == "shared removed" {
				w.Foreign["prod"] = world.ForeignBytes(w.Read("prod"))
			}
			// It takes Vault, and says so while there is none.
			if c.name != "by configuration" {
				return
			}
			w.Proxy.Down()
			w.Blank("prod")
			w.Is("prod", "drift", "refused")
			if err := w.Proxy.Up(); err != nil {
				t.Fatal(err)
			}
			w.Pass()
			w.InSync(1)
			w.Holds("prod", secret)
			w.Ran(3, "end", "set")
		})
	}
}

// drift.revert: alert touches nothing, says it once, and sees when it is over.
func TestDriftIsOnlyReported(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Settings: "drift: {revert: alert}"})
	right := w.Read("prod")
	w.Edits("prod", func(d []byte) []byte { return world.Replaced(t, d, "0123456789ABCDEF@techacct", "mallory@techacct") })
	wrong := w.Read("prod")
	w.Is("prod", "drift/drift_alert", "drift.revert: alert")
	w.Pass()
	w.Is("prod", "drift")
	if !bytes.Equal(w.Read("prod"), wrong) {
		t.Error("the file was changed")
	}
	if n := strings.Count(w.Log(), "level=ERROR"); n != 1 {
		t.Errorf("%d alarms\n%s", n, w.Log())
	}
	stdout, _, status := w.RunCommand("diff")
	if status != 3 || !strings.Contains(stdout, "authIMSTAId") || strings.Contains(stdout, "mallory") {
		t.Errorf("diff ended with %d: %s", status, stdout)
	}
	if _, _, status := w.RunCommand("status"); status != 3 {
		t.Errorf("status ended with %d", status)
	}
	if err := os.WriteFile(w.File("prod"), right, 0o640); err != nil {
		t.Fatal(err)
	}
	w.Is("prod", "in_sync")
	w.Ran(1, "end", "set")
}

// Drift that was there before the daemon may have been loaded by Campaign: its revert is followed by activation.
func TestDriftFoundAtStartIsActivated(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Stop()
	w.Blank("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Holds("prod", secrets["prod"])
	w.Ran(1, "end", "set")
	w.Ran(2, "end", "reload")
}

// The log of a revert says what was done to each attribute, who owns the file and when it was changed, however it was reverted; and
// the first line of all says what runs.
func TestRevertSaysWhatWasDone(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"splice", "nlserver"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{Settings: "drift: {revert: " + mode + "}"})
			w.Logged("level=INFO", "msg=started", "version=", "config="+w.Config, "source=["+w.Proxy.Address+"]", "poll=1s", `verify="@every 10m"`)
			w.Edits("prod", func(d []byte) []byte {
				d = regexp.MustCompile(` authIMSTAClientSecret="[^"]*"`).ReplaceAll(d, []byte(` authIMSTAClientSecret=""`))
				d = regexp.MustCompile(` authIMSTAId="[^"]*"`).ReplaceAll(d, []byte(` authIMSTAId="mallory"`))
				return regexp.MustCompile(` authIMSTAClientId="[^"]*"`).ReplaceAll(d, nil)
			})
			w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
			w.Holds("prod", secrets["prod"])
			owner, err := user.Current()
			w.Must(err)
			line := w.Logged("level=WARN", `msg="drift reverted"`, "instance=prod", "file_owner="+owner.Username, "file_changed_at="+time.Now().UTC().Format("2006-01-02T"))
			names := regexp.MustCompile(`attribute="\[(.*?)\]" change="\[(.*?)\]"`).FindStringSubmatch(line)
			want := map[string]string{"authIMSTAClientId": "removed", "authIMSTAClientSecret": "emptied", "authIMSTAId": "changed"}
			got := map[string]string{}
			if names != nil {
				changes := strings.Fields(names[2])
				for i, name := range strings.Fields(names[1]) {
					got[name] = changes[i]
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("it says %v, want %v\n%s", got, want, line)
			}
		})
	}
}
