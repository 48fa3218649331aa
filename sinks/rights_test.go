package sinks

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/imsxml"
	"campaign-credsync/test/logtest"
	"campaign-credsync/test/skip"
)

// logged has the instance write its log where the test can read it.
func (c *campaign) logged() *logtest.Buffer {
	log := new(logtest.Buffer)
	cfg := c.cfg
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	c.Instance = New(cfg)
	return log
}

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
			applied, _, err := c.Apply(t.Context(), newTestCredential(firstSecret))
			if err != nil {
				t.Fatal(err)
			}
			whole, ran := c.content(), c.read("var/standin/runs.jsonl")
			drifted := c.with(credential.Attribute{Name: attrClientID, Value: "mallory"})
			dir := filepath.Dir(c.file)
			// What a stranger would plant: an update that a crash seems to have displaced.
			planted := filepath.Join(dir, copyName("config-prod.xml", []byte("a"), []byte("b")))
			if err := errors.Join(os.WriteFile(c.file, []byte(drifted), 0o640),
				os.WriteFile(planted, []byte(strings.Replace(whole, "<ims", "<ims planted='1'", 1)), 0o640),
				c.before.save([]byte(whole)), os.Chmod(dir, mode)); err != nil {
				t.Fatal(err)
			}
			before, state := contents(t, dir), contents(t, c.state)
			for name, call := range map[string]func() error{
				"look":    func() error { _, err := c.Look(t.Context()); return err },
				"restore": func() error { _, err := c.Restore(t.Context(), applied); return err },
				"apply":   func() error { _, _, err := c.Apply(t.Context(), newTestCredential(secondSecret)); return err },
				"recover": func() error { return c.Recover(t.Context()) },
				"repair":  func() error { return c.restoreFile(t.Context()) },
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
			if now := c.read("var/standin/runs.jsonl"); now != ran {
				t.Errorf("nlserver was run: %s", strings.TrimPrefix(now, ran))
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

// A file that everybody may write, and a directory of somebody who has nothing to do with the file, are told of, once,
// and worked with.
func TestOpenRightsAreToldOnce(t *testing.T) {
	for _, x := range []struct {
		name, want string
		open       func(file string) error
	}{
		{"file", "everybody may write this", func(f string) error { return os.Chmod(f, 0o646) }},
		{"directory of a stranger", "this directory belongs to somebody else", func(f string) error { return os.Chown(filepath.Dir(f), 12345, -1) }},
		{"directory of a group", "the group of this directory", func(f string) error { return os.Chmod(filepath.Dir(f), 0o775) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				skip.Unable(t, "needs root to give things away")
			}
			c := newCampaign(t)
			log := c.logged()
			for times := range 3 {
				if times == 1 {
					if err := x.open(c.file); err != nil {
						t.Fatal(err)
					}
				}
				seen, err := c.Look(t.Context())
				if err == nil {
					_, err = c.Restore(t.Context(), credential.Attributes{seen.Get(attrClientID)})
				}
				if told := strings.Count(log.String(), x.want); err != nil || told != min(times, 1) {
					t.Errorf("%v, told %d times\n%s", err, told, log)
				}
			}
		})
	}
}
