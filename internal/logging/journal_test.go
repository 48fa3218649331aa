package logging

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
)

func TestJournalEntry(t *testing.T) {
	r := slog.NewRecord(time.Now(), slog.LevelError, "step failed\nPRIORITY=0", 0)
	r.AddAttrs(slog.Int("version", 4), slog.String("reason", "no such file\nINSTANCE=other"), slog.Any("secret", credential.NewSecret("canary")))
	message, fields := entry(r, []slog.Attr{slog.String("instance", "prod")})
	if want := `step failed | PRIORITY=0 instance=prod version=4 reason="no such file | INSTANCE=other"`; !strings.HasPrefix(message, want) {
		t.Errorf("message %q, want %q", message, want)
	}
	for name, want := range map[string]string{"INSTANCE": "prod", "VERSION": "4", "REASON": "no such file | INSTANCE=other"} {
		if fields[name] != want {
			t.Errorf("%s is %q, want %q", name, fields[name], want)
		}
	}
	if _, has := fields["LEVEL"]; has || strings.Contains(fmt.Sprint(message, fields), "canary") {
		t.Errorf("%q, %v", message, fields)
	}
	for level, want := range map[slog.Level]journal.Priority{
		slog.LevelDebug: journal.PriDebug, slog.LevelInfo: journal.PriInfo, slog.LevelWarn: journal.PriWarning, slog.LevelError: journal.PriErr,
	} {
		if got := priorityOf(level); got != want {
			t.Errorf("%v has priority %d, want %d", level, got, want)
		}
	}
}

// TestJournalStream: a stream is the journal's if JOURNAL_STREAM names it, and then lines have no time of their own. What the journal does
// not take is written to the stream.
func TestJournalStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stream")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	journal := environment("JOURNAL_STREAM", fmt.Sprintf("%d:%d", stat.Dev, stat.Ino))
	if !destinationOf(file, journal).journal || destinationOf(file, environment("JOURNAL_STREAM", "8:1")).journal {
		t.Error("the stream of the journal is not told from another")
	}
	log, end := New(config.Log{Level: "info", Format: "text"}, file, journal, new(slog.LevelVar))
	log.Info("hello", "instance", "prod")
	end()
	text, err := os.ReadFile(path)
	if want := "level=INFO msg=hello instance=prod\n"; err != nil || string(text) != want {
		t.Errorf("%q, want %q (%v)", text, want, err)
	}
}
