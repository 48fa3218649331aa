package sinks

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/test/logtest"
)

// What was saved of one file gets into no other, however damaged that is, and is not lost: each stays, with whose it is.
func TestSavedOfAnotherFileIsSetAside(t *testing.T) {
	for name, save := range map[string]func(c *campaign) (saved string, content []byte){
		"a run": func(c *campaign) (string, []byte) {
			content := []byte(c.content())
			if err := c.saveFile(content); err != nil {
				t.Fatal(err)
			}
			return c.saved, content
		},
		"a survey": func(c *campaign) (string, []byte) {
			var record []byte
			_, _, err := c.Try(t.Context(), Trial{Credential: newTestCredential(firstSecret), Run: func(*os.File) { record, _ = os.ReadFile(c.trial) }})
			if err := errors.Join(err, os.WriteFile(c.trial, record, 0o600)); err != nil || len(record) == 0 {
				t.Fatal("nothing was saved: ", err)
			}
			return c.trial, record
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCampaign(t)
			config := c.cfg
			config.File = filepath.Join(c.path, "conf", "other.xml")
			half := c.content()[:len(c.content())/2]
			if err := os.WriteFile(config.File, []byte(half), 0o640); err != nil {
				t.Fatal(err)
			}
			for n, number := range []string{".1", ".2"} {
				saved, content := save(c)
				aside := saved + number
				if err := os.WriteFile(aside+".path", []byte("by a process that was killed before it went on"), 0o600); err != nil {
					t.Fatal(err)
				}
				other := New(config)
				for range 2 {
					if err := other.Recover(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				for path, want := range map[string]string{config.File: half, aside: string(content), aside + ".path": c.file} {
					if got, err := os.ReadFile(path); err != nil || string(got) != want {
						t.Errorf("%s holds %q, %v, want %q", path, got, err, want)
					}
				}
				listed, err := Asides(c.cfg.StateDir)
				if want := (Aside{c.cfg.Name, aside, c.file}); err != nil || len(listed) != n+1 || listed[n] != want {
					t.Errorf("listed: %v, %v, want %v as the last of %d", listed, err, want, n+1)
				}
				c.wantClean()
			}
		})
	}
}

// The same file in another spelling of its path is no other file.
func TestSavedOfTheSameFileIsUsed(t *testing.T) {
	c := newCampaign(t)
	whole := c.content()
	if err := errors.Join(c.saveFile([]byte(whole)), os.WriteFile(c.file, []byte(whole[:len(whole)/2]), 0o640)); err != nil {
		t.Fatal(err)
	}
	config := c.cfg
	config.File = strings.Replace(c.file, "/conf/", "/conf/./", 1)
	if err := New(config).Recover(t.Context()); err != nil || c.content() != whole {
		t.Errorf("not put back: %v", err)
	}
	c.wantClean()
}

// What is there in place of a path is no path: what was saved is of a file that is not known, and nothing of it is shown.
func TestSavedOfNoPathIsSetAside(t *testing.T) {
	for name, text := range map[string]string{"nothing": "", "another file's content": "<ims secret='canary'/>\n", "with it behind": "/conf\n<ims secret='canary'/>"} {
		t.Run(name, func(t *testing.T) {
			c := newCampaign(t)
			var log logtest.Buffer
			config, whole := c.cfg, c.content()
			config.Logger = slog.New(slog.NewTextHandler(&log, nil))
			if err := errors.Join(c.saveFile([]byte("<other/>")), os.WriteFile(c.savedOf, []byte(text), 0o600), New(config).Recover(t.Context())); err != nil {
				t.Fatal(err)
			}
			listed, err := Asides(c.cfg.StateDir)
			if want := (Aside{c.cfg.Name, c.saved + ".1", ""}); err != nil || len(listed) != 1 || listed[0] != want {
				t.Errorf("listed: %q, %v, want %v", listed, err, want)
			}
			if c.content() != whole {
				t.Errorf("the file is %s", c.content())
			}
			c.wantClean()
			if text := log.String(); strings.Contains(text, "canary") || !strings.Contains(text, "is set aside") {
				t.Errorf("logged: %s", text)
			}
		})
	}
}
