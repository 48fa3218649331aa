package nlserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

// restarts is a home and a state directory in which each call of again is a daemon of its own, after a kill.
type restarts struct {
	*fakeHome
	state string
}

func newRestarts(t *testing.T, script string) restarts {
	return restarts{newFakeHome(t, script), t.TempDir()}
}

func (r restarts) daemon() *Binary {
	return r.server(func(c *Config) { c.StateDir = r.state })
}

func (r restarts) again() error {
	return r.daemon().activate(r.t.Context(), stepOf("restart web"), time.Time{})
}

func (r restarts) ran() int { return strings.Count(r.read("runs"), "restart web") }

func (r restarts) note() string { return filepath.Join(r.state, "web.restart") }

func (r restarts) setNote(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.note(), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// A restart that failed three times in a row is paused for a daemon that comes later, too, which says why it failed. An operator's order
// has it tried again, and a success is the end of it.
func TestFailedRestartsOutliveTheDaemon(t *testing.T) {
	r := newRestarts(t, "echo 'no license (iRc=-7)'; exit 3")
	for range failuresBeforePause {
		mustSay(t, r.again(), "exit status 3: no license (iRc=-7)")
	}
	for range 3 {
		mustSay(t, r.again(), "failed 3 times in a row", "systemctl reload", "exit status 3: no license (iRc=-7)")
	}
	if n := r.ran(); n != failuresBeforePause {
		t.Fatalf("it ran %d times", n)
	}
	ordered := r.daemon()
	ordered.Retry()
	mustSay(t, ordered.activate(t.Context(), stepOf("restart web"), time.Time{}), "web: exit status 3")
	mustSay(t, r.again(), "web: exit status 3") // the order has released what was counted before it
	r.install("")
	if err := r.again(); err != nil {
		t.Fatal(err)
	}
	r.install("exit 4")
	for range failuresBeforePause {
		mustSay(t, r.again(), "web: exit status 4")
	}
	mustSay(t, r.again(), "failed 3 times in a row")
}

// What an earlier daemon left decides whether the module is restarted.
func TestNoteOfAnEarlierDaemon(t *testing.T) {
	ended := "4194305 (sh) R 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 77 2 3 4\n" // there is no such process
	failed := func(count int, ago time.Duration) string {
		return failures{count, time.Now().Add(-ago), "exit status 9"}.line()
	}
	for name, c := range map[string]struct {
		note   string
		paused bool
	}{
		"empty":                                   {"", false},
		"an older release's, ended":               {"ended\n", false},
		"an older release's, killed":              {ended, false},
		"twice":                                   {"ended\n" + failed(2, time.Second), false},
		"three times":                             {"ended\n" + failed(3, time.Second), true},
		"with a rest behind":                      {"ended\n" + failed(3, time.Second) + "8 9 10\n", true},
		"killed in the third":                     {ended + failed(2, time.Second), true},
		"killed in the second":                    {ended + failed(1, time.Second), false},
		"ten minutes ago":                         {"ended\n" + failed(3, restartPause+time.Second), false},
		"by a clock that was set back":            {"ended\n" + failed(3, -1000*time.Hour), true},
		"a newer release's":                       {"ended\n" + strings.Replace(failed(3, time.Second), "{", `{"future":[1],`, 1) + "more\n", true},
		"no line of ours, after a kill":           {"ended\n 1 2 3\n", false},
		"cut off":                                 {"ended\n" + failed(3, time.Second)[:20], false},
		"a count that is none":                    {"ended\n" + failed(-3, time.Second), false},
		"the count alone, of a disk that is full": {"ended\n{\"failures\":3}\n", false}, // of unknown age
	} {
		t.Run(name, func(t *testing.T) {
			r := newRestarts(t, "exit 3")
			r.setNote(c.note)
			err := r.again()
			if paused := strings.Contains(err.Error(), "failed 3 times in a row"); paused != c.paused {
				t.Errorf("paused: %v, %v", paused, err)
			}
		})
	}
}

// While a restart runs, and after it, its note says the same to an older release, which knows no failures.
func TestNoteServesAnOlderRelease(t *testing.T) {
	r := newRestarts(t, "")
	r.install(`cat '` + r.note() + `' >$H/note; cat "/proc/$$/stat" >$H/stat; exit 3`)
	for range 2 {
		mustSay(t, r.again(), "exit status 3")
	}
	// As it reads: the process is the first word, its start the 20th after the last parenthesis.
	began := func(stat string) string {
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if len(fields) < 20 || fields[0] == "Z" {
			return ""
		}
		return fields[19]
	}
	running, stat := r.read("note"), r.read("stat")
	pid, _, _ := strings.Cut(running, " ")
	if own, _, _ := strings.Cut(stat, " "); pid != own || began(running) == "" || began(running) != began(stat) {
		t.Errorf("while it runs: %q, and it is %q", running, stat)
	}
	if !strings.Contains(running, `"failures":1`) {
		t.Errorf("while it runs, nothing tells of the failure before: %q", running)
	}
	left, err := os.ReadFile(r.note())
	if err != nil || !strings.HasPrefix(string(left), "ended\n") || !strings.Contains(string(left), `"failures":2`) {
		t.Errorf("after it: %q, %v", left, err)
	}
}

// The activation service counts on from the note. What an operator has forgiven is taken out of it, and the time for min_interval stays.
func TestForgivenNote(t *testing.T) {
	r := newRestarts(t, "")
	r.setNote("ended\n" + failures{3, time.Now(), "exit status 9"}.line())
	restarted := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(r.note(), restarted, restarted); err != nil {
		t.Fatal(err)
	}
	r.daemon().forgiveNote("web")
	left, err := os.ReadFile(r.note())
	info, statErr := os.Stat(r.note())
	if err != nil || statErr != nil || string(left) != "ended\n" || !info.ModTime().Equal(restarted) {
		t.Errorf("%q of %v, %v, %v", left, info.ModTime(), err, statErr)
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	r.setNote(string(stat) + failures{Count: 3}.line())
	r.daemon().forgiveNote("web")
	if left, _ := os.ReadFile(r.note()); !bytes.HasPrefix(left, stat) {
		t.Errorf("the note of a restart that runs became %q", left)
	}
}

// What the note quotes of the output is as clean as an error is.
func TestNoteHidesSecrets(t *testing.T) {
	r := newRestarts(t, `echo 'loaded p8e-`+strings.Repeat("Ab1_", 8)+` (iRc=-5)'; exit 1`)
	mustSay(t, r.again(), "[redacted]")
	left, err := os.ReadFile(r.note())
	if err != nil || bytes.Contains(left, []byte("Ab1_")) || !bytes.Contains(left, []byte("(iRc=-5)")) {
		t.Errorf("%q, %v", left, err)
	}
	var f failures
	_, second, _ := bytes.Cut(left, []byte("\n"))
	if err := json.Unmarshal(second, &f); err != nil || f.Text != credential.OneLine(f.Text) {
		t.Errorf("%q, %v", second, err)
	}
}

// What is at the note's path and is no note of ours is neither waited for nor written to, and the module is restarted all the same.
func TestNoteThatIsNone(t *testing.T) {
	for name, plant := range map[string]func(note, other string) error{
		"FIFO":      func(note, _ string) error { return unix.Mkfifo(note, 0o600) },
		"directory": func(note, _ string) error { return os.Mkdir(note, 0o700) },
		"link":      func(note, other string) error { return os.Symlink(other, note) },
		"1 GiB": func(note, _ string) error {
			return errors.Join(os.WriteFile(note, []byte("ended\n"), 0o600), os.Truncate(note, 1<<30))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRestarts(t, "")
			other := filepath.Join(t.TempDir(), "other")
			if err := errors.Join(os.WriteFile(other, []byte("not ours\n"), 0o600), plant(r.note(), other)); err != nil {
				t.Fatal(err)
			}
			b := r.daemon()
			ended := make(chan error, 1)
			go func() { ended <- b.activate(t.Context(), stepOf("restart web"), time.Time{}) }()
			select {
			case err := <-ended:
				if err != nil || r.ran() != 1 {
					t.Errorf("%v, ran %d times", err, r.ran())
				}
			case <-time.After(time.Minute):
				t.Fatal("it waits")
			}
			if left, err := os.ReadFile(other); err != nil || string(left) != "not ours\n" {
				t.Errorf("the other file is %q, %v", left, err)
			}
		})
	}
}
