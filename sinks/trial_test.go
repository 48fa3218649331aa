package sinks

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// triedFile has both kinds of quotes, and what is beside the credential.
const triedFile = "<?xml version='1.0'?>\n<serverconf>\n  <!-- kept -->\n  <shared>\n    <ims authIMSTAClientId='old' authIMSTAId=\"old\" " +
	"authIMSTAClientSecret='@b2xk' other='1' authIMSClientId='people'/>\n  </shared>\n  <mta a='1'></mta>\n</serverconf>\n"

func tag(attributes string) string {
	return "<ims " + attributes + " other='1' authIMSClientId='people'/>"
}

// asSet is what a set of the credential makes of <ims>.
func asSet(c credential.Credential) string {
	return tag("authIMSTAClientId='" + c.ClientID + "' authIMSTAId='" + c.TechnicalAccountID + "' authIMSTAClientSecret='@bmV3' org='" + c.OrgID + "'")
}

func (c *campaign) rights() string {
	c.t.Helper()
	var s unix.Stat_t
	value := make([]byte, 100)
	if err := unix.Stat(c.file, &s); err != nil {
		c.t.Fatal(err)
	}
	n, _ := unix.Getxattr(c.file, "user.note", value)
	return string(value[:max(n, 0)]) + " " + os.FileMode(s.Mode&0o777).String()
}

func (c *campaign) survey() string { return filepath.Join(c.state, "prod.survey") }

func TestTrialIsUndone(t *testing.T) {
	made := newTestCredential(firstSecret)
	set := func(file string) string { return imsTag.ReplaceAllLiteralString(file, asSet(made)) }
	inPlace := func(c *campaign, content string) { c.write(content) }
	byRename := func(c *campaign, content string) {
		beside := c.file + ".new"
		if err := errors.Join(os.WriteFile(beside, []byte(content), 0o600), os.Rename(beside, c.file)); err != nil {
			c.t.Error(err)
		}
	}
	reformatted := strings.NewReplacer("\n", "", "  ", "", "></mta>", "/>", "'", `"`)
	for name, test := range map[string]struct {
		before string
		run    func(c *campaign)
		after  string // empty: as before
		says   string // in the error
	}{
		"set in place":     {run: func(c *campaign) { inPlace(c, set(triedFile)) }},
		"set by rename":    {run: func(c *campaign) { byRename(c, set(triedFile)) }},
		"reformatted":      {run: func(c *campaign) { inPlace(c, reformatted.Replace(set(triedFile))) }},
		"only reformatted": {run: func(c *campaign) { byRename(c, reformatted.Replace(triedFile)) }},
		"empty":            {run: func(c *campaign) { inPlace(c, "") }},
		"without shared":   {run: func(c *campaign) { inPlace(c, "<serverconf/>") }},
		"without shared, no credential before": {
			before: "<serverconf><shared><dataStore/></shared></serverconf>",
			run:    func(c *campaign) { inPlace(c, "<serverconf/>") },
		},
		"cut off, by rename": {run: func(c *campaign) { byRename(c, triedFile[:80]) }},
		"only an id is set":  {run: func(c *campaign) { inPlace(c, imsTag.ReplaceAllLiteralString(triedFile, tag("org='"+made.OrgID+"'"))) }},
		"emptied":            {run: func(c *campaign) { inPlace(c, imsTag.ReplaceAllLiteralString(triedFile, tag("authIMSTAClientId=''"))) }},
		"the login of people is written": {run: func(c *campaign) {
			inPlace(c, strings.Replace(set(triedFile), "people", made.ClientID, 1))
		}},
		"an ims is made": {
			before: "<serverconf><shared/></serverconf>",
			run: func(c *campaign) {
				inPlace(c, "<serverconf><shared>\n<ims authIMSTAClientId='"+made.ClientID+"' authIMSTAClientSecret='@bmV3'/>\n</shared></serverconf>")
			},
		},
		"nothing":        {run: func(c *campaign) {}},
		"a file is made": {run: func(c *campaign) { os.WriteFile(filepath.Join(c.path, "conf", "config-none.xml"), nil, 0o600) }},
		"somebody adds a comment": {
			run:   func(c *campaign) { inPlace(c, set(triedFile)+"<!-- new -->") },
			after: triedFile + "<!-- new -->", says: "the rest is as it was found",
		},
		"somebody removes a comment": {
			run:   func(c *campaign) { byRename(c, strings.Replace(set(triedFile), "<!-- kept -->", "", 1)) },
			after: strings.Replace(triedFile, "<!-- kept -->", "", 1), says: "the rest is as it was found",
		},
		"somebody changes the login of people": {
			run:   func(c *campaign) { inPlace(c, strings.Replace(set(triedFile), "people", "others", 1)) },
			after: strings.Replace(triedFile, "people", "others", 1), says: "the rest is as it was found",
		},
		"somebody sets a credential": {
			run:   func(c *campaign) { inPlace(c, strings.ReplaceAll(triedFile, "old", "new")) },
			after: strings.ReplaceAll(triedFile, "old", "new"), says: "holds another credential, which is kept",
		},
	} {
		for _, crashed := range []bool{false, true} {
			when := ""
			if crashed {
				when = ", after a crash"
			}
			t.Run(name+when, func(t *testing.T) {
				c := newCampaign(t)
				before := test.before
				if before == "" {
					before = triedFile
				}
				c.write(before)
				if err := os.Chmod(c.file, 0o644); err != nil {
					t.Fatal(err)
				}
				unix.Setxattr(c.file, "user.note", []byte("kept"), 0) // where there are such
				rights := c.rights()
				trial := Trial{Credential: made, Creates: filepath.Join(c.path, "conf", "config-none.xml"), Run: func(*os.File) { test.run(c) }}
				var record []byte
				if crashed {
					trial.Run = func(*os.File) { record, _ = os.ReadFile(c.survey()) }
				}
				_, after, err := c.Try(t.Context(), trial)
				if crashed {
					if err := os.WriteFile(c.survey(), record, 0o600); err != nil || len(record) == 0 {
						t.Fatal("nothing was saved: ", err)
					}
					test.run(c)
					if err := c.Recover(t.Context()); err != nil {
						t.Fatal(err)
					}
				} else if (err == nil) != (test.says == "") || err != nil && (!errors.Is(err, ErrChangedInTrial) || !strings.Contains(err.Error(), test.says)) {
					t.Errorf("it says %v", err)
				} else if name == "set in place" && string(after) != set(triedFile) {
					t.Errorf("the run is said to have left %s", after)
				}
				want := test.after
				if want == "" {
					want = before
				}
				if got := c.content(); got != want {
					t.Errorf("the file is\n%s\nwant\n%s", got, want)
				}
				if got := c.rights(); got != rights {
					t.Errorf("its rights are %s, want %s", got, rights)
				}
				kept, _ := os.ReadFile(filepath.Join(c.state, "prod.survey-original.xml"))
				if wantKept := map[bool]string{true: before}[test.says != ""]; string(kept) != wantKept {
					t.Errorf("kept: %q, want %q", kept, wantKept)
				}
				for _, left := range []string{c.survey(), filepath.Join(c.path, "conf", "config-none.xml")} {
					if _, err := os.Stat(left); err == nil {
						t.Errorf("left: %s", left)
					}
				}
				c.wantClean()
			})
		}
	}
}

// A file that is gone is not created. What undoes the trial stays until it is back.
func TestTrialThatRemovesTheFile(t *testing.T) {
	c := newCampaign(t)
	c.write(triedFile)
	_, _, err := c.Try(t.Context(), Trial{Credential: newTestCredential(firstSecret), Run: func(*os.File) { os.Remove(c.file) }})
	if !errors.Is(err, credential.ErrMissing) || c.content() != "" {
		t.Fatalf("%v, and the file is %q", err, c.content())
	}
	if err := c.Recover(t.Context()); !errors.Is(err, credential.ErrMissing) {
		t.Fatal(err)
	}
	c.write(strings.ReplaceAll(triedFile, "old", "from the backup"))
	if err := c.Recover(t.Context()); err != nil || !strings.Contains(c.content(), "from the backup") {
		t.Fatalf("%v, and the file is %q", err, c.content())
	}
	c.wantClean()
}

// A link that nlserver replaces by a file is not made again, but said.
func TestTrialOfALink(t *testing.T) {
	c := newCampaign(t)
	made := newTestCredential(firstSecret)
	real := filepath.Join(filepath.Dir(c.file), "real.xml")
	c.write(triedFile)
	if err := errors.Join(os.Rename(c.file, real), os.Symlink("real.xml", c.file)); err != nil {
		t.Fatal(err)
	}
	set := imsTag.ReplaceAllLiteralString(triedFile, asSet(made))
	if _, _, err := c.Try(t.Context(), Trial{Credential: made, Run: func(*os.File) { c.write(set) }}); err != nil || c.content() != triedFile {
		t.Errorf("written in place: %v, and the file is\n%s", err, c.content())
	}
	_, _, err := c.Try(t.Context(), Trial{Credential: made, Run: func(*os.File) {
		if err := errors.Join(os.Remove(c.file), os.WriteFile(c.file, []byte(set), 0o600)); err != nil {
			t.Error(err)
		}
	}})
	if !errors.Is(err, ErrChangedInTrial) || !strings.Contains(err.Error(), `it was a symbolic link to "real.xml"`) || c.content() != triedFile {
		t.Errorf("replaced: %v, and the file is\n%s", err, c.content())
	}
	c.wantClean()
}

// A process that the run started may write after it has ended. Until it has ended, too, the trial is not over.
func TestTrialOutlivedByItsRun(t *testing.T) {
	c := newCampaign(t)
	c.write(triedFile)
	made := newTestCredential(firstSecret)
	later := exec.Command("sh", "-c", `read go; cat "$0" > "$1"`, filepath.Join(c.path, "set.xml"), c.file)
	if err := os.WriteFile(filepath.Join(c.path, "set.xml"), []byte(imsTag.ReplaceAllLiteralString(triedFile, asSet(made))), 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := later.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = c.Try(t.Context(), Trial{Credential: made, Run: func(lock *os.File) {
		later.ExtraFiles = []*os.File{lock}
		if err := later.Start(); err != nil {
			t.Error(err)
		}
	}})
	if !errors.Is(err, credential.ErrStillRunning) || c.content() != triedFile {
		t.Errorf("%v, and the file is\n%s", err, c.content())
	}
	if _, err := release.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if err := later.Wait(); err != nil || c.content() == triedFile {
		t.Fatalf("%v, and nothing was written", err)
	}
	if err := c.Recover(t.Context()); err != nil || c.content() != triedFile {
		t.Errorf("%v, and the file is\n%s", err, c.content())
	}
	c.wantClean()
}

// What cannot be removed does not keep the file from being put back, and is tried again.
func TestTrialWhoseFileCannotBeRemoved(t *testing.T) {
	c := newCampaign(t)
	c.write(triedFile)
	made := newTestCredential(firstSecret)
	full := filepath.Join(c.path, "conf", "config-none.xml")
	_, _, err := c.Try(t.Context(), Trial{Credential: made, Creates: full, Run: func(*os.File) {
		c.write(imsTag.ReplaceAllLiteralString(triedFile, asSet(made)))
		if err := os.MkdirAll(filepath.Join(full, "inside"), 0o700); err != nil {
			t.Error(err)
		}
	}})
	if err == nil || !strings.Contains(err.Error(), full) || c.content() != triedFile {
		t.Errorf("%v, and the file is\n%s", err, c.content())
	}
	if err := errors.Join(os.RemoveAll(full), c.Recover(t.Context())); err != nil {
		t.Error(err)
	}
	c.wantClean()
}

// While a trial runs there is no other, and no apply.
func TestTrialIsAlone(t *testing.T) {
	c := newCampaign(t)
	made := newTestCredential(firstSecret)
	ran := false
	_, _, err := c.Try(t.Context(), Trial{Credential: made, Run: func(*os.File) {
		ran = true
		if _, _, err := c.Try(t.Context(), Trial{Credential: made, Run: func(*os.File) { t.Error("a second one runs") }}); !errors.Is(err, credential.ErrStillRunning) {
			t.Error("a second one: ", err)
		}
		if _, _, err := c.Apply(t.Context(), made, nil); !errors.Is(err, credential.ErrStillRunning) {
			t.Error("an apply: ", err)
		}
	}})
	if err != nil || !ran {
		t.Error(err, ran)
	}
	// One that could not be saved does not run.
	c.cfg.StateDir, c.trial = c.state, filepath.Join(c.state, "nowhere", "prod.survey")
	if _, _, err := c.Try(t.Context(), Trial{Credential: made, Run: func(*os.File) { t.Error("it runs, and nothing was saved") }}); err == nil {
		t.Error("no error")
	}
}
