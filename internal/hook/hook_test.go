package hook_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"campaign-credsync/internal/hook"
	"campaign-credsync/sync/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute // a wait's end, for what hangs

// failures counts runs that failed.
type failures struct{ atomic.Int32 }

func (f *failures) NotifyFailed() { f.Add(1) }

func open(t *testing.T, log *strings.Builder, timeout time.Duration, meter hook.Meter, command ...string) *hook.Hook {
	t.Helper()
	return hook.Open(hook.Config{
		Command: command, Timeout: timeout, Env: os.Environ(), Meter: meter,
		Logger: slog.New(slog.NewTextHandler(log, nil)), // read after Close only
	})
}

func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

func toldTo(t *testing.T, path string) (events []event.Event) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var e event.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		events = append(events, e)
	}
	return events
}

func TestProgramIsToldOfEachEvent(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var log strings.Builder
	h := open(t, &log, patience, nil, shell("cat >>"+out)...)
	for i := range 3 {
		h.Tell(event.Event{Kind: event.Applied, Instance: "prod", Version: i + 1})
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if data, _ := os.ReadFile(out); strings.Count(string(data), "\n") == i+1 {
				break
			}
		}
	}
	h.Close(patience)
	events := toldTo(t, out)
	if len(events) != 3 || events[2].Version != 3 || events[2].Count != 0 || log.String() != "" || h.Failing() != "" {
		t.Errorf("told %v, %v, logged %s", events, h.Failing(), log.String())
	}
}

// A thousand events at once are few runs, and all of them are counted.
func TestManyEventsAreJoined(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var log strings.Builder
	h := open(t, &log, patience, nil, shell("cat >>"+out)...)
	const all = 1000
	for i := range all {
		h.Tell(event.Event{Kind: event.Applied, Version: i + 1})
	}
	h.Close(patience)
	events, sum := toldTo(t, out), 0
	for _, e := range events {
		sum += max(e.Count, 1)
	}
	if len(events) > 11 || sum != all || events[len(events)-1].Version != all {
		t.Errorf("%d runs for %d events: %v", len(events), sum, events)
	}
}

// What comes when a run is about to begin is joined, and what comes after that is told, too.
func TestEventsAfterManyAreTold(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var log strings.Builder
	h := open(t, &log, patience, nil, shell("cat >>"+out)...)
	told := func() (sum int) {
		if _, err := os.Stat(out); err == nil {
			for _, e := range toldTo(t, out) {
				sum += max(e.Count, 1)
			}
		}
		return sum
	}
	all := 0
	tell := func() {
		h.Tell(event.Event{Kind: event.Applied})
		all++
	}
	await := func() {
		for end := time.Now().Add(patience); told() < all; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("told %d of %d events", told(), all)
			}
		}
	}
	for range 5 {
		for range 1000 { // some of them between the news and the run
			tell()
			runtime.Gosched()
		}
		await()
	}
	h.Close(patience)
}

func TestProgramFails(t *testing.T) {
	dir := t.TempDir()
	ok, notExecutable := filepath.Join(dir, "ok"), filepath.Join(dir, "text")
	if err := os.WriteFile(notExecutable, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		timeout time.Duration
		command []string
		says    string
	}{
		"exit status":   {patience, shell("echo no such user p8e-SecretSecretSecret >&2; exit 3"), "exit status 3"},
		"missing":       {patience, []string{filepath.Join(dir, "nowhere")}, "not found"},
		"no program":    {patience, []string{notExecutable}, "exit status 126"},
		"a directory":   {patience, []string{dir}, "exit status 126"},
		"hangs":         {50 * time.Millisecond, shell("sleep 600 & sleep 600"), "killed after 50ms"},
		"prints a lot":  {patience, shell("head -c 1073741824 /dev/zero; exit 1"), "exit status 1"},
		"reads nothing": {patience, shell("exec <&-; exit 1"), "exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			var failed failures
			h := open(t, &log, c.timeout, &failed, c.command...)
			h.Tell(event.Event{Kind: event.Applied})
			for end := time.Now().Add(patience); failed.Load() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			h.Tell(event.Event{Kind: event.Applied})
			h.Close(patience)
			s := h.Failing()
			if failed.Load() != 2 || !strings.Contains(s, c.says) || len(s) > 1000 || strings.Contains(s, "p8e-S") {
				t.Errorf("%+v", s)
			}
			if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, c.says) {
				t.Errorf("logged: %s", got)
			}
		})
	}
	t.Run("and works again", func(t *testing.T) {
		var log strings.Builder
		var failed failures
		h := open(t, &log, patience, &failed, shell(fmt.Sprintf("test -e %s", ok))...)
		h.Tell(event.Event{Kind: event.Applied})
		for end := time.Now().Add(patience); failed.Load() == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if err := os.WriteFile(ok, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		h.Tell(event.Event{Kind: event.Applied})
		h.Close(patience)
		if s := h.Failing(); failed.Load() != 1 || s != "" || !strings.Contains(log.String(), "works again") {
			t.Errorf("%+v, %d failures, logged: %s", s, failed.Load(), log.String())
		}
	})
}

// The end of the daemon does not wait for a program that hangs.
func TestCloseEndsAProgramThatHangs(t *testing.T) {
	started := filepath.Join(t.TempDir(), "started")
	var log strings.Builder
	h := open(t, &log, patience, nil, shell("touch "+started+"; sleep 600")...)
	h.Tell(event.Event{Kind: event.Stopped})
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(started); err == nil {
			break
		}
	}
	h.Close(10 * time.Millisecond)
	h.Tell(event.Event{Kind: event.Stopped}) // and no panic
	if !strings.Contains(h.Failing(), "the daemon stopped") {
		t.Errorf("%+v", h.Failing())
	}
}
