package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

var surveys = []string{"survey", "--instance", "prod", "--yes-this-is-a-test-instance"}

// surveyed is what survey --json prints.
type surveyed struct {
	AsAssumed    bool `json:"as_assumed"`
	FileAsBefore bool `json:"file_as_before"`
	Comparison   []struct {
		What, Assumed, Found string
		Differs              bool
	}
	Assumptions json.RawMessage
	Observed    struct {
		Version    string
		Build      int
		Options    []string
		Left       []string
		TookMillis map[string]float64 `json:"took_ms"`
		Writing    struct {
			Rights     string
			OtherNames []string `json:"other_names"`
		}
		Modules []struct {
			Name, Runs   string
			Umask        string
			ControlGroup string `json:"control_group"`
			HoldsOutput  bool   `json:"holds_output"`
		}
	}
}

// differs are the lines that differ, and what was found.
func (s surveyed) differs() map[string]string {
	lines := map[string]string{}
	for _, l := range s.Comparison {
		if l.Differs {
			lines[l.What] = l.Found
		}
	}
	return lines
}

// fileState is all of a file that a survey must leave.
func fileState(w *world.World) string {
	w.T.Helper()
	var s unix.Stat_t
	w.Must(unix.Stat(w.File("prod"), &s))
	value := make([]byte, 100)
	n, _ := unix.Getxattr(w.File("prod"), "user.note", value)
	return fmt.Sprintf("%d:%d %o %q\n%s", s.Uid, s.Gid, s.Mode, value[:max(n, 0)], w.Read("prod"))
}

// surveyWorld has no Vault, and a file whose rights and attributes can be told from others.
func surveyWorld(t *testing.T, campaign string) *world.World {
	w := world.New(t, container.Options{
		NoVault: true, Secrets: map[string]string{"prod": "source: file, file: /nowhere/credential.json"}, Campaign: campaign,
		Settings: "log: {level: debug, format: text}",
	})
	w.SetByHand(handSecret)
	w.Must(os.Chmod(w.File("prod"), 0o604))
	unix.Setxattr(w.File("prod"), "user.note", []byte("kept"), 0) // where the file system has that
	return w
}

// survey runs one, and demands that the file is as before, that nothing is left, and that no value of a credential is shown.
func survey(w *world.World, status int) (s surveyed, report string) {
	w.T.Helper()
	before := fileState(w)
	stdout, stderr, got := w.RunCommand(append(surveys, "--json")...)
	if got != status {
		w.T.Fatalf("survey ended with %d, want %d\n%s%s", got, status, stdout, stderr)
	}
	if after := fileState(w); after != before {
		w.T.Errorf("the file was\n%s\nand is\n%s", before, after)
	}
	surveyLeftNothing(w)
	if found := madeUp.FindString(controlGroup.ReplaceAllString(stdout, "") + stderr); found != "" {
		w.T.Errorf("a value shows: %s\n%s%s", found, stdout, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &s); err != nil {
		w.T.Fatalf("%v: %s", err, stdout)
	}
	return s, stdout
}

func surveyLeftNothing(w *world.World) {
	w.T.Helper()
	left, err := filepath.Glob(w.Path("state", "*.survey*"))
	w.Must(err)
	beside, err := os.ReadDir(filepath.Join(w.Home, "conf"))
	w.Must(err)
	for _, e := range beside {
		left = append(left, e.Name())
	}
	if want := []string{"config-default.xml", "config-prod.xml"}; !slices.Equal(left, want) {
		w.T.Errorf("left: %q", left)
	}
}

// madeUp is what the values of a credential look like, and what the stand-in makes of a secret.
var madeUp = regexp.MustCompile(`p8e-[A-Z2-7]{8}|[0-9a-f]{32}|[0-9A-F]{24}@|[A-F0-9]+@techacct|@[A-Za-z0-9+/]{40}`)

// controlGroup may be named anyhow.
var controlGroup = regexp.MustCompile(`"control_group": ".*"`)

func TestSurveyAsAssumed(t *testing.T) {
	t.Parallel()
	w := surveyWorld(t, "activate: {restart: [pipelined]}")
	s, _ := survey(w, 0)
	if !s.AsAssumed || !s.FileAsBefore || s.Observed.Build != 9383 || s.Observed.TookMillis["set again"] <= 0 || !slices.Contains(s.Observed.Options, "setdblogin") {
		t.Errorf("%+v", s)
	}
	for _, l := range s.Comparison {
		if l.Found == "" || l.Found != l.Assumed {
			t.Errorf("%+v", l)
		}
	}
	w.Ran(1, "start", "restart", "pipelined@prod")
	w.Reconfigured(func(o *container.Options) { o.Campaign = "" })
	if stdout := w.Exits(0, "", surveys...); !strings.Contains(stdout, "| set: end | exit 0 | exit 0 |") || madeUp.MatchString(stdout) {
		t.Error(stdout)
	}

	// Nothing but the credential's attributes is in an instance that had none.
	w.Edits("prod", func(d []byte) []byte { return regexp.MustCompile(`(?s)\s*<ims auth.*?/>`).ReplaceAll(d, nil) })
	w.Must(os.Chmod(w.File("prod"), 0o604))
	survey(w, 0)
}

// Each way that nlserver may have is reported, and undone.
func TestSurveyModes(t *testing.T) {
	t.Parallel()
	ends := func(call, as string) string {
		return `{"calls": {"` + call + `": {"ended": "` + as + `", "prints": ["Something else (iRc=-1)"]}}}`
	}
	for name, test := range map[string]struct {
		assumptions, faults, campaign string
		differs                       map[string]string
	}{
		"rename":        {assumptions: `{"write": "rename"}`, differs: map[string]string{"how the file is written": "rename"}},
		"pieces":        {assumptions: `{"write": "pieces"}`, differs: map[string]string{"how the file is written": "pieces"}},
		"reformatted":   {assumptions: `{"form": "reformatted"}`, differs: map[string]string{"form of the file": "reformatted"}},
		"both":          {assumptions: `{"form": "reformatted", "write": "rename"}`, differs: map[string]string{"form of the file": "reformatted", "how the file is written": "rename"}},
		"deterministic": {assumptions: `{"encryption": "deterministic"}`, differs: map[string]string{"encryption of the same secret": "deterministic"}},
		"org id": {
			faults: `{"org_attribute": "authIMSOrgId"}`,
			differs: map[string]string{"organisation id in clear": "authIMSOrgId", "attributes of <ims>": "authIMSOrgId: ims_org_id | " +
				"authIMSTAClientId: client_id | authIMSTAClientSecret: encrypted | authIMSTAId: technical_account_id"},
		},
		"org id in an attribute of others": {
			faults: `{"org_attribute": "authIMSClientId"}`,
			differs: map[string]string{"organisation id in clear": "authIMSClientId", "attributes of <ims>": "authIMSClientId: ims_org_id | " +
				"authIMSTAClientId: client_id | authIMSTAClientSecret: encrypted | authIMSTAId: technical_account_id"},
		},
		"an older build": {faults: `{"options": ["setimsauth"]}`, differs: map[string]string{"options that set a credential": "setimsauth",
			"set, two of four fields: output": "Option '-setimsauth' takes 4 values separated by '/', 2 given. (iRc=-5302)"}},
		"odd exit code": {
			faults:  `{"exit_code": 7}`,
			differs: map[string]string{"set: end": "exit 7", "set, two of four fields: end": "exit 7", "set, an instance that there is not: end": "exit 7"},
		},
		"another answer": {
			assumptions: ends("reload", "exit 3"), differs: map[string]string{"config -reload: end": "exit 3", "config -reload: output": "Something else (iRc=-1)"},
		},
		"hang after the write": {
			assumptions: ends("set", "timeout"), campaign: "timeout: 2s",
			differs: map[string]string{"set: end": "timeout", "set: output": "Something else (iRc=-1) | stand-in waits: assumed timeout"},
		},
		"hang with the file empty": {
			faults: `{"hang_after_truncate": true}`, campaign: "timeout: 2s",
			differs: map[string]string{"set: end": "timeout", "set: file": "damaged", "set: output": "stand-in waits: hang_after_truncate",
				"form of the file": "", "encryption of the same secret": ""},
		},
		"crash in the middle": {
			faults:  `{"write_half": true, "die": true}`,
			differs: map[string]string{"set: end": "signal SIGKILL", "set: file": "damaged", "set: output": "nothing", "set, two of four fields: end": "signal SIGKILL", "set, an instance that there is not: end": "signal SIGKILL"},
		},
		"nothing is written": {
			faults:  `{"no_write": true}`,
			differs: map[string]string{"set: file": "unchanged", "how the file is written": "nothing"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := surveyWorld(t, test.campaign)
			w.Must(w.SetAssumptions(w.Ctx, test.assumptions))
			if test.faults != "" {
				w.Faults(test.faults)
			}
			s, _ := survey(w, 3)
			got := s.differs()
			for what, found := range test.differs {
				if got[what] != found {
					t.Errorf("%s: found %q, want %q", what, got[what], found)
				}
				delete(got, what)
			}
			for what, found := range got {
				t.Errorf("differs too: %s: %q", what, found)
			}
		})
	}
}

// What an nlserver that is killed leaves beside the file is named, and left.
func TestSurveyNamesWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := surveyWorld(t, "timeout: 2s")
	w.Must(w.SetAssumptions(w.Ctx, `{"write": "rename"}`))
	w.Faults(`{"hang_after_truncate": true}`)
	before := fileState(w)
	stdout, stderr, status := w.RunCommand(append(surveys, "--json")...)
	var s surveyed
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || status != 3 || s.Observed.Left == nil {
		t.Fatalf("it ended with %d, %v\n%s%s", status, err, stdout, stderr)
	}
	if after := fileState(w); after != before {
		t.Errorf("the file was\n%s\nand is\n%s", before, after)
	}
	left := s.Observed.Left[0]
	if !strings.HasPrefix(left, "config-prod.xml.") || !strings.Contains(stderr, left) {
		t.Errorf("left is %q, and it says %s", left, stderr)
	}
	w.Must(os.Remove(filepath.Join(w.Home, "conf", left)))
	surveyLeftNothing(w)
}

// A link is followed, and what was there before is never called left.
func TestSurveyOfALink(t *testing.T) {
	t.Parallel()
	w := surveyWorld(t, "")
	conf := filepath.Join(w.Home, "conf")
	w.Must(os.Rename(w.File("prod"), filepath.Join(conf, "real.xml")))
	w.Must(os.Symlink("real.xml", w.File("prod")))
	before := fileState(w)
	stdout, stderr, status := w.RunCommand(append(surveys, "--json")...)
	var s surveyed
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || status != 0 || len(s.Observed.Left)+len(s.Observed.Writing.OtherNames) > 0 {
		t.Errorf("it ended with %d, %v, and calls %q left\n%s", status, err, s.Observed.Left, stderr)
	}
	if after := fileState(w); after != before {
		t.Errorf("the file was\n%s\nand is\n%s", before, after)
	}
	if target, err := os.Readlink(w.File("prod")); err != nil || target != "real.xml" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	w.Must(os.Rename(filepath.Join(conf, "real.xml"), w.File("prod"))) // as every test leaves it
}

// A module that its restart starts is found where it runs, and holds nothing of the survey.
func TestSurveyFindsTheModule(t *testing.T) {
	t.Parallel()
	w := surveyWorld(t, "activate: {restart: [pipelined]}")
	w.Must(w.SetAssumptions(w.Ctx, `{"module": "child"}`))
	s, _ := survey(w, 3)
	m := s.Observed.Modules
	if len(m) != 1 || m[0].Runs != "child" || m[0].Umask == "" || m[0].ControlGroup == "" || !m[0].HoldsOutput {
		t.Errorf("%+v", m)
	}
	w.Ran(2, "start", "restart", "pipelined@prod")
	runs, err := w.Runs()
	w.Must(err)
	last := runs[slices.IndexFunc(runs, func(r container.Run) bool { return r.Event == "child" })]
	for _, r := range runs {
		if r.Event == "child" {
			last = r
		}
	}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", last.ChildPID))
	for _, file := range files {
		if target, _ := os.Readlink(file); strings.Contains(target, "credsync") {
			t.Errorf("it holds %s", target)
		}
	}
	if len(files) == 0 {
		t.Error("the module does not run")
	}
}

// A stand-in that is given a report behaves as the report says.
func TestSurveyReportReplacesAssumptions(t *testing.T) {
	t.Parallel()
	w := surveyWorld(t, "activate: {restart: [pipelined]}")
	other := `{"options": ["setimsoauth"], "write": "rename", "form": "reformatted", "encryption": "deterministic", "module": "child",
		"attributes": [{"name": "authIMSTAClientId", "holds": "client_id"}, {"name": "authIMSTAClientSecret", "holds": "encrypted"},
			{"name": "authIMSOrg", "holds": "ims_org_id"}, {"name": "authIMSTAId", "holds": "technical_account_id"}],
		"calls": {"wrong_instance": {"ended": "exit 4", "prints": ["No instance INSTANCE below HOME/conf (iRc=-9)"]}, "set": {"ended": "exit 0", "prints": []},
			"reload": {"ended": "exit 2", "prints": ["Nothing to reload"]}}}`
	w.Must(w.SetAssumptions(w.Ctx, other))
	first, report := survey(w, 3)
	w.Must(w.SetAssumptions(w.Ctx, ""))
	survey(w, 0)
	w.Must(w.SetAssumptions(w.Ctx, report))
	second, _ := survey(w, 3)
	if string(first.Assumptions) != string(second.Assumptions) {
		t.Errorf("found\n%s\nand from a stand-in that behaves so\n%s", first.Assumptions, second.Assumptions)
	}
	for _, says := range []string{"authIMSOrg", `"rename"`, `"exit 4"`, "No instance INSTANCE below HOME/conf (iRc=-9)", `"child"`} {
		if !strings.Contains(string(second.Assumptions), says) {
			t.Errorf("%s does not say %s", second.Assumptions, says)
		}
	}
}

// waitingSurvey is a survey whose nlserver waits, with the file truncated.
func waitingSurvey(w *world.World) *container.Daemon {
	w.T.Helper()
	w.Faults(`{"write_delay": "30m", "ignore_sigterm": true}`)
	d, err := w.StartCommand(nil, surveys...)
	w.Must(err)
	w.WaitsAt("write_delay")
	if len(w.Read("prod")) > 0 {
		w.T.Fatal("the file is not empty")
	}
	return d
}

// A survey that is to end puts the file back before, whoever tells it so and how often, and whether or not anybody reads what it says.
func TestSurveyInterrupted(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			w := surveyWorld(t, "")
			before := fileState(w)
			d := waitingSurvey(w)
			for n := range 3 {
				if err := d.Signal(signal); n == 0 || !errors.Is(err, os.ErrProcessDone) { // it may have ended by now, as the machine is busy
					w.Must(err)
				}
				time.Sleep(20 * time.Millisecond) // so that they are not joined; nlserver, which ignores them, is given 2 s
			}
			select {
			case <-d.Ended():
			case <-time.After(world.Patience):
				t.Fatal("it does not end: ", d.Log())
			}
			if d.ExitStatus() != 1 || madeUp.MatchString(d.Log()) {
				t.Errorf("it ended with %d:\n%s", d.ExitStatus(), d.Log())
			}
			if after := fileState(w); after != before {
				t.Errorf("the file was\n%s\nand is\n%s", before, after)
			}
			surveyLeftNothing(w)
		})
	}
}

// After kill -9 the next survey, sync or run puts the file back, when the nlserver that outlived it has ended: whether it did not come to
// write, wrote, or wrote in another form.
func TestSurveyKilled(t *testing.T) {
	t.Parallel()
	next := map[string]func(w *world.World){
		"survey": func(w *world.World) { w.Exits(0, "as assumed", surveys...) },
		"run": func(w *world.World) {
			w.StartDaemon()
			w.Logged("a survey was interrupted; the configuration file is as before it")
			w.Stop()
		},
		"adopt": func(w *world.World) { w.Exits(1, "", "adopt") }, // as there is no source to compare with
	}
	for name, puts := range next {
		for _, how := range []string{"it never wrote", "it wrote", "it wrote in another form"} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				w := surveyWorld(t, "")
				if how == "it wrote in another form" {
					w.Must(w.SetAssumptions(w.Ctx, `{"form": "reformatted"}`))
				}
				before := fileState(w)
				d := waitingSurvey(w)
				d.Kill()
				if how == "it never wrote" {
					w.EndLeftRuns()
				} else {
					w.Release()
					w.Eventually("nlserver has ended", func() bool { n, err := w.Container.Ended("set"); return err == nil && n > 3 })
				}
				if fileState(w) == before {
					t.Fatal("nothing is to be put back")
				}
				w.Must(w.SetAssumptions(w.Ctx, ""))
				w.Faults("")
				puts(w)
				if after := fileState(w); after != before {
					t.Errorf("the file was\n%s\nand is\n%s\n%s", before, after, w.Log())
				}
				surveyLeftNothing(w)
			})
		}
	}
}

// What somebody else changed in the meantime stays, and is not taken for a credential of ours.
func TestSurveyLosesNoUpdate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit func(w *world.World, file string) string
		keep string // in the file
		id   string // the client id in it
	}{
		"a comment": {
			func(_ *world.World, file string) string { return file + "<!-- somebody was here -->\n" },
			"<!-- somebody was here -->", "ffffffffffffffffffffffffffffffff",
		},
		"another credential": {
			func(w *world.World, file string) string {
				file = regexp.MustCompile(`authIMSTA\w+="[^"]*"`).ReplaceAllStringFunc(file, func(a string) string {
					name, _, _ := strings.Cut(a, "=")
					return name + `="somebody's"`
				})
				return file
			},
			`authIMSTAClientSecret="somebody's"`, "somebody's",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := surveyWorld(t, "")
			before := w.Read("prod")
			waitingSurvey(w).Kill()
			w.Release()
			w.Eventually("nlserver has ended", func() bool { n, err := w.Container.Ended("set"); return err == nil && n > 3 })
			w.Edits("prod", func(file []byte) []byte { return []byte(test.edit(w, string(file))) })
			w.Faults("")
			w.Exits(0, "was changed by somebody else", surveys...)
			if id := w.Attribute("prod", "authIMSTAClientId"); id != test.id || !strings.Contains(string(w.Read("prod")), test.keep) {
				t.Errorf("the client id is %s, or %s is gone:\n%s", id, test.keep, w.Read("prod"))
			}
			kept := w.Path("state", "prod.survey-original.xml")
			if original, err := os.ReadFile(kept); err != nil || string(original) != string(before) {
				t.Errorf("the file from before is not kept: %v", err)
			}
			w.Must(os.Remove(kept))
			surveyLeftNothing(w)
		})
	}
}

// A daemon that guards the instance, from this state directory or another, is not surveyed behind its back.
func TestSurveyBesideADaemon(t *testing.T) {
	t.Parallel()
	w := surveyWorld(t, "")
	w.StartDaemon()
	demand := unrun(w)
	w.Exits(1, "systemctl stop campaign-credsync", surveys...)
	config, err := os.ReadFile(w.Config)
	w.Must(err)
	other := w.Path("other.yaml")
	w.Must(os.WriteFile(other, []byte(strings.Replace(string(config), w.StateDir(), w.Path("other-state"), 1)), 0o600))
	w.Exits(1, "systemctl stop campaign-credsync", append([]string{"--config", other}, surveys...)...)
	demand()
}
