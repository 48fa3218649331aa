package history_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/history"
	"campaign-credsync/sync/event"
	"campaign-credsync/test/skip"
)

// notes is a log that a test reads while it is written.
type notes struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// writes appends events with these texts, and returns what was logged.
func writes(dir string, texts ...string) string {
	var n notes
	l := history.Open(dir, slog.New(slog.NewTextHandler(&n, nil)))
	for _, text := range texts {
		l.Append(event.Event{Time: time.Now(), Kind: event.Applied, Instance: "prod", Text: text})
	}
	l.Close(time.Minute)
	return n.String()
}

// holds demands the texts of all events, and a number of torn lines.
func holds(t *testing.T, dir string, torn int, want ...string) {
	t.Helper()
	events, gotTorn, err := history.Read(dir, func(event.Event) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		got = append(got, e.Text)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || gotTorn != torn {
		t.Errorf("%q and %d torn lines, want %q and %d", got, gotTorn, want, torn)
	}
}

func TestHistorySurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	holds(t, dir, 0)
	writes(dir, "one", "two")
	writes(dir, "three")
	holds(t, dir, 0, "one", "two", "three")
}

// What a killed process left of its last line takes no other line with it.
func TestHistoryAfterATornLine(t *testing.T) {
	dir := t.TempDir()
	writes(dir, "one", "two")
	path := filepath.Join(dir, "history.jsonl")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-20); err != nil {
		t.Fatal(err)
	}
	writes(dir, "three")
	holds(t, dir, 1, "one", "three")
}

// Two files of at most 8 MiB are kept, and the newest events are in them.
func TestHistoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("x", 32<<10)
	var n notes
	l := history.Open(dir, slog.New(slog.NewTextHandler(&n, nil)))
	const events = 900 // about 28 MiB
	for i := range events {
		l.Append(event.Event{Kind: event.Applied, Version: i + 1, Text: long})
	}
	l.Close(time.Minute)
	for _, name := range []string{"history.jsonl", "history.jsonl.1"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() > history.MaxSize {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	kept, torn, err := history.Read(dir, func(event.Event) bool { return true })
	if err != nil || torn > 0 || len(kept) < 200 {
		t.Fatalf("%d events are kept, %d torn: %v", len(kept), torn, err)
	}
	for i, e := range kept {
		if want := events - len(kept) + i + 1; e.Version != want {
			t.Fatalf("event %d is number %d, want %d", i, e.Version, want)
		}
	}
	if l.Dropped() > 0 || n.String() != "" {
		t.Errorf("%d events dropped: %s", l.Dropped(), n.String())
	}
	for _, most := range []int{0, 1, 300, len(kept) + 1} { // of no file, of one, of both, and all
		newest, err := history.Newest(dir, most, func(e event.Event) bool { return e.Version%2 == 0 })
		if err != nil || len(newest) != min(most, len(kept)/2) {
			t.Fatalf("the newest %d are %d: %v", most, len(newest), err)
		}
		for i, e := range newest {
			if e.Version != events-2*i {
				t.Fatalf("of the newest, event %d is number %d", i, e.Version)
			}
		}
	}
}

// Newest passes over what is no event, as Read does, and says what cannot be read.
func TestNewestOfATornFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "history.jsonl")
	if err := os.WriteFile(path, []byte("\n{\"event\":\"app\n{\"event\":\"applied\",\"text\":\"one\"}\n\n{\"event\":\"applied\",\"text\":\"two\"}\n{\"ev"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := func(event.Event) bool { return true }
	if newest, err := history.Newest(dir, 10, all); err != nil || len(newest) != 2 || newest[0].Text != "two" || newest[1].Text != "one" {
		t.Errorf("%v, %v", newest, err)
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if newest, err := history.Newest(dir, 10, all); err == nil {
		t.Errorf("a directory has %v", newest)
	}
}

// Nothing is written through a link or into what is no file; that is logged once, and so is the end of it.
func TestHistoryFileIsReplaced(t *testing.T) {
	for name, put := range map[string]func(path, other string) error{
		"by a link":      func(path, other string) error { return os.Symlink(other, path) },
		"by a hard link": func(path, other string) error { return os.Link(other, path) },
		"by a directory": func(path, _ string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, other := filepath.Join(dir, "history.jsonl"), filepath.Join(t.TempDir(), "other")
			if err := os.WriteFile(other, []byte("of somebody else\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := put(path, other); err != nil {
				t.Fatal(err)
			}
			var n notes
			l := history.Open(dir, slog.New(slog.NewTextHandler(&n, nil)))
			for range 3 {
				l.Append(event.Event{Kind: event.Applied})
			}
			for end := time.Now().Add(time.Minute); l.Dropped() < 3 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			l.Append(event.Event{Kind: event.Applied, Text: "after"})
			l.Close(time.Minute)
			holds(t, dir, 0, "after")
			if text, err := os.ReadFile(other); err != nil || string(text) != "of somebody else\n" {
				t.Errorf("%q, %v", text, err)
			}
			if got := n.String(); l.Dropped() != 3 || strings.Count(got, "cannot be written") != 1 || strings.Count(got, "count=3") != 1 {
				t.Errorf("%d dropped: %s", l.Dropped(), got)
			}
		})
	}
}

// A file that somebody moved away, as logrotate does, is left alone.
func TestHistoryFileIsMovedAway(t *testing.T) {
	dir := t.TempDir()
	var n notes
	l := history.Open(dir, slog.New(slog.NewTextHandler(&n, nil)))
	path := filepath.Join(dir, "history.jsonl")
	l.Append(event.Event{Kind: event.Applied, Text: "before"})
	for end := time.Now().Add(time.Minute); os.Rename(path, path+".away") != nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	l.Append(event.Event{Kind: event.Applied, Text: "after"})
	l.Close(time.Minute)
	holds(t, dir, 0, "after")
}

// On a full disk events are dropped whole and counted; nothing that was written is lost, and it goes on when there is room.
func TestHistoryOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Unable(t, "needs root to mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var n notes
	l := history.Open(dir, slog.New(slog.NewTextHandler(&n, nil)))
	long := strings.Repeat("x", 3000)
	for range 40 {
		l.Append(event.Event{Kind: event.Applied, Text: long})
	}
	for end := time.Now().Add(time.Minute); l.Dropped() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	l.Append(event.Event{Kind: event.Applied, Text: "after"})
	l.Close(time.Minute)
	events, torn, err := history.Read(dir, func(event.Event) bool { return true })
	if err != nil || torn > 0 || len(events)+int(l.Dropped()) != 41 || events[len(events)-1].Text != "after" {
		t.Errorf("%d events, %d torn, %d dropped: %v", len(events), torn, l.Dropped(), err)
	}
	if got := n.String(); !strings.Contains(got, "cannot be written") || !strings.Contains(got, "written again") {
		t.Errorf("logged: %s", got)
	}
}

// Whoever reads while the file takes the place of the older one misses nothing that was written before.
func TestReadWhileTheFileBecomesTheOlderOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "history.jsonl")
	writes(dir, "one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	writes(dir, "two", strings.Repeat("x", history.MaxSize-2000))
	var got []string
	events, torn, err := history.Read(dir, func(e event.Event) bool {
		if e.Text == "one" {
			writes(dir, strings.Repeat("y", 2000)) // for which there is no room
		}
		return len(e.Text) < 10
	})
	for _, e := range events {
		got = append(got, e.Text)
	}
	if fmt.Sprint(got) != "[one two]" || torn != 0 || err != nil {
		t.Errorf("%q and %d torn lines: %v", got, torn, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 10_000 {
		t.Errorf("the test looks in vain: there is no other file: %v", err)
	}
}
