package faults_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

const historySize = 8 << 20

// nearlyFull makes a history in which no event has room: whole lines, and then what a killed process left of one. It returns how many
// events are in it; the last one is of a minute ago, the others of the day before yesterday.
func nearlyFull(w *world.World) (events int) {
	w.T.Helper()
	line := func(n int, age time.Duration, text string) []byte {
		encoded, err := json.Marshal(map[string]any{"time": time.Now().Add(-age).UTC(), "host": "h", "event": "applied", "instance": "old", "version": n, "text": text})
		w.Must(err)
		return append(encoded, '\n')
	}
	var all []byte
	for len(all) < historySize-40_000 {
		events++
		all = append(all, line(events, 48*time.Hour, strings.Repeat("x", 30_000))...)
	}
	events++
	all = append(all, line(events, time.Minute, "")...)
	torn := strings.Repeat("y", historySize-40-len(all))
	all = append(all, (`{"time":"` + torn)...)
	w.Must(os.MkdirAll(w.StateDir(), 0o700))
	w.Must(os.WriteFile(filepath.Join(w.StateDir(), "history.jsonl"), all, 0o600))
	return events
}

// A daemon that starts with a history of nearly 8 MiB, whose last line is torn, begins another file and keeps that one: `history` tells of
// both, in order. What is in the way of that is told, and nothing else is held up.
func TestHistoryBeginsAnotherFile(t *testing.T) {
	t.Parallel()
	for _, older := range []string{"nothing", "a file", "a directory"} {
		t.Run("the older one is "+older, func(t *testing.T) {
			t.Parallel()
			// With the race detector it would take so long to read that the command gives up, on a busy machine.
			w := world.New(t, container.Options{Programs: world.Plain()})
			events := nearlyFull(w)
			path := filepath.Join(w.StateDir(), "history.jsonl")
			switch older {
			case "a file":
				w.Must(os.WriteFile(path+".1", []byte(`{"time":"2020-01-01T00:00:00Z","event":"applied","text":"of long ago"}`+"\n"), 0o600))
			case "a directory":
				w.Must(os.Mkdir(path+".1", 0o700))
			}
			_, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(1)
			if older == "a directory" {
				w.Warns("history_failing", false, "history.jsonl.1")
				reverts(w, secret)
				w.Must(os.Remove(path + ".1"))
				w.Warns("history_failing", true)
			}
			reverts(w, secret)
			w.Eventually("the history has the revert", func() bool { return strings.HasSuffix(kinds(w.History("--since", "1h")), "drift_reverted") })
			w.Stop()
			recent := kinds(w.History("--since", "1h")) // of both files
			if older != "a directory" && recent != "applied started applied activated drift_reverted stopped" || !strings.HasPrefix(recent, "applied ") {
				t.Errorf("of the last hour: %s", recent)
			}
			all := w.History()
			for i := range events {
				if all[i].Instance != "old" || all[i].Version != i+1 {
					t.Fatalf("event %d is %v", i+1, all[i])
				}
			}
			for i := range len(all) - 1 {
				if all[i+1].Time.Before(all[i].Time) {
					t.Errorf("%v comes before %v", all[i], all[i+1])
				}
			}
			for _, name := range []string{path, path + ".1"} {
				if info, err := os.Stat(name); err != nil || info.Size() > historySize {
					t.Errorf("%s: %v, %v", name, info, err)
				}
			}
		})
	}
}

// kinds are those of events, in their order.
func kinds(events []world.Event) string {
	var all []string
	for _, e := range events {
		all = append(all, e.Kind)
	}
	return strings.Join(all, " ")
}

// A history that the daemon's user may not write is told, holds up nothing, and is still read; when it may be written again, it goes on.
func TestHistoryThatMayNotBeWritten(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	w, secrets := world.Started(t, container.Options{User: 65534})
	w.Happened("activated")
	path := filepath.Join(w.StateDir(), "history.jsonl")
	w.Stop()
	w.Must(os.Chown(path, 0, 0))
	w.Must(os.Chmod(path, 0o644))
	w.StartDaemon()
	w.Warns("history_failing", false, "permission denied", path)
	reverts(w, secrets["prod"])
	if got := kinds(w.History()); got != "started applied activated stopped" {
		t.Errorf("the history has %s", got)
	}
	w.Must(os.Chown(path, 65534, 65534))
	w.Must(os.Chmod(path, 0o600))
	w.Warns("history_failing", true)
	w.Happened("drift_reverted") // the last one that was lost
}

// withMissing adds instances whose file is missing, and whose secret is malformed: two events each, at once; and whatever concerns all is an
// event for each.
func withMissing(w *world.World, n int) {
	w.T.Helper()
	source := w.Path("source.json")
	w.Must(os.WriteFile(source, []byte(`{}`), 0o600))
	text, err := os.ReadFile(w.Config)
	w.Must(err)
	var more strings.Builder
	for i := range n {
		fmt.Fprintf(&more, "  - {name: i%d, source: file, file: %s}\n", i, source)
	}
	w.Must(os.WriteFile(w.Config, world.Replaced(w.T, text, "state_dir:", more.String()+"state_dir:"), 0o600))
}

// A thousand events at once are in the history, each once and in order, and hold up no revert. The program of notify.exec is run ten times a
// minute at most, and what it is told of counts them all.
func TestThousandEventsAtOnce(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Programs: world.Plain(), Settings: "watch: {poll: 1h}"})
	w.Reconfigured(func(o *container.Options) {
		o.Settings += fmt.Sprintf("\nnotify: {exec: [/bin/sh, -c, 'cat >>\"$0\"', %s]}", w.Path("told"))
	})
	const missing = 350 // which are more than a thousand events
	withMissing(w, missing)
	_, secret := w.NewSecret("prod")
	began := time.Now()
	w.StartDaemon()
	w.OneInSync("prod", 1)
	reverts(w, secret)
	w.Exits(1, "", "sync") // an event for each
	reverts(w, secret)
	count := func(all []world.Event) map[string]int {
		n := map[string]int{}
		for _, e := range all {
			n[e.Kind]++
		}
		return n
	}
	w.Eventually("all is in the history", func() bool {
		n := count(w.History())
		return n["degraded"] == missing && n["blocked"] == missing && n["sync_asked"] == missing+1 && n["drift_reverted"] == 2
	})
	w.Warns("history_failing", true)
	runs, sum := 0, 0
	w.Eventually("the program is told of all", func() bool {
		input, err := os.ReadFile(w.Path("told"))
		runs, sum = strings.Count(string(input), "\n"), 0
		for _, e := range w.EventsIn(string(input)) {
			sum += max(e.Count, 1)
		}
		return err == nil && sum == len(w.History())
	})
	if most := 11 + int(time.Since(began).Minutes()*10); runs > most {
		t.Errorf("the program ran %d times for %d events, want at most %d", runs, sum, most)
	}
	t.Logf("%d runs for %d events", runs, sum)

	// Killed in the middle of many lines: what was written is whole, but for one line at most.
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		w.Command(w.Ctx, "pause", "--for", "1h")
	}()
	w.Eventually("it writes", func() bool { return fileSays(w, `"event":"paused"`) })
	w.Kill()
	<-asked
	all := w.History()
	names := map[string]bool{}
	for i, e := range all {
		if i > 0 && e.Time.Before(all[i-1].Time) {
			t.Errorf("%v comes before %v", all[i-1], e)
		}
		if id := e.Kind + " " + e.Instance; e.Kind != "drift_reverted" && e.Kind != "activated" && e.Instance != "" {
			if names[id] {
				t.Errorf("%s is there twice", id)
			}
			names[id] = true
		}
	}
	n := count(all)
	if n["degraded"] != missing || n["blocked"] != missing || n["sync_asked"] != missing+1 || n["paused"] == 0 || n["drift_reverted"] != 2 {
		t.Errorf("the history has %v", n)
	}
	text, err := os.ReadFile(w.Path("state", "history.jsonl"))
	w.Must(err)
	if lines := strings.Count(string(text), "\n"); lines < len(all) || lines > len(all)+1 {
		t.Errorf("%d lines hold %d events", lines, len(all))
	}
	w.StartDaemon()
	w.Exits(0, "", "resume")
	w.OneInSync("prod", 1)
	reverts(w, secret)
	w.Stop()
}

// fileSays reports whether the history's file has a text by now.
func fileSays(w *world.World, text string) bool {
	data, err := os.ReadFile(w.Path("state", "history.jsonl"))
	return err == nil && strings.Contains(string(data), text)
}
