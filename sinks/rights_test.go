package sinks

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/imsxml"
)

// with is the file's content with one attribute changed.
func (c *campaign) with(attribute credential.Attribute) string {
	c.t.Helper()
	document, err := imsxml.Parse([]byte(c.content()))
	if err != nil {
		c.t.Fatal(err)
	}
	changed, err := document.Set(credential.Attributes{attribute})
	if err != nil {
		c.t.Fatal(err)
	}
	return string(changed)
}

// contents is all that is in a directory, links as what they lead to.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = info.Mode().String()
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			all[e.Name()] += " " + string(content)
		}
	}
	return all
}

// In a directory that everybody may write, with the sticky bit or without, nothing is done at all, until its mode is right.
func TestDirectoryThatEverybodyMayWriteIsRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o777, 0o772, 0o777 | os.ModeSticky} {
		t.Run(mode.String(), func(t *testing.T) {
			c := newCampaign(t)
			applied, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil)
			if err != nil {
				t.Fatal(err)
			}
			whole := c.content()
			applies := func() int { return strings.Count(c.read("var/standin/runs.jsonl"), `"kind":"set"`) }
			ran := applies()
			drifted := c.with(credential.Attribute{Name: attrClientID, Value: "mallory"})
			dir := filepath.Dir(c.file)
			// What a stranger would plant: an update that a crash seems to have displaced.
			planted := filepath.Join(dir, ".config-prod.xml.credsync-ca978112ca1bbdca-3e23e8160039594a")
			if err := errors.Join(os.WriteFile(c.file, []byte(drifted), 0o640),
				os.WriteFile(planted, []byte(strings.Replace(whole, "<ims", "<ims planted='1'", 1)), 0o640),
				os.WriteFile(c.saved, []byte(whole), 0o600), os.Chmod(dir, mode)); err != nil {
				t.Fatal(err)
			}
			before, state := contents(t, dir), contents(t, c.state)
			for name, call := range map[string]func() error{
				"look":    func() error { _, err := c.Look(t.Context()); return err },
				"restore": func() error { _, err := c.Restore(t.Context(), applied); return err },
				"apply":   func() error { _, _, err := c.Apply(t.Context(), newTestCredential(secondSecret), nil); return err },
				"recover": func() error { return c.Recover(t.Context()) },
				"repair":  func() error { return c.restoreFile(t.Context(), []byte(whole)) },
			} {
				err := call()
				octal := fmt.Sprintf("%04o", mode.Perm())
				if mode&os.ModeSticky != 0 {
					octal = "1777"
				}
				if !strings.Contains(fmt.Sprint(err), "everybody may write the directory") || !strings.Contains(err.Error(), dir+" has mode "+octal+": chmod o-w "+dir) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if now := contents(t, dir); !maps.Equal(now, before) {
				t.Errorf("written in %s: now %d entries, before %d", dir, len(now), len(before))
			}
			if now := contents(t, c.state); !maps.Equal(now, state) {
				t.Errorf("written in %s: now %d entries, before %d", c.state, len(now), len(state))
			}
			if ran == 0 || applies() != ran {
				t.Errorf("nlserver wrote %d times, want %d", applies(), ran)
			}
			if err := errors.Join(os.Remove(planted), os.Chmod(dir, 0o755)); err != nil {
				t.Fatal(err)
			}
			if err := c.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := c.Restore(t.Context(), applied); err != nil {
				t.Error(err)
			}
			if got := c.content(); got != whole {
				t.Errorf("with the mode right, %d bytes, want %d", len(got), len(whole))
			}
			c.wantClean()
		})
	}
}
