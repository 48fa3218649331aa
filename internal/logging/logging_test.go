package logging

import (
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/test/skip"
)

// TestLogFormats: what each format writes where there is no terminal: neither time nor colour.
func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{
		"auto": "level=INFO msg=applied instance=prod version=4\n",
		"text": "level=INFO msg=applied instance=prod version=4\n",
		"json": `{"level":"INFO","msg":"applied","instance":"prod","version":4}` + "\n",
		"tint": "INF applied instance=prod version=4\n",
	} {
		var out strings.Builder
		log, end := New(config.Log{Level: "info", Format: format}, &out, new(slog.LevelVar))
		log.Info("applied", "instance", "prod", "version", 4)
		log.Debug("not this")
		end()
		if out.String() != want {
			t.Errorf("%s: %q, want %q", format, out.String(), want)
		}
	}
}

func TestLogLevelChanges(t *testing.T) {
	var out strings.Builder
	level := new(slog.LevelVar)
	log, end := New(config.Log{Level: "error", Format: "text"}, &out, level)
	log.Warn("before")
	level.Set(slog.LevelDebug)
	log.Debug("after")
	end()
	if got, want := out.String(), "level=DEBUG msg=after\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestLogEscapes: nothing in a value takes over the terminal or begins a line of its own, and no Secret prints.
func TestLogEscapes(t *testing.T) {
	hostile := "a\x1b[2J\nlevel=ERROR msg=forged\u202e\x9b"
	for _, format := range []string{"tint", "text", "json"} {
		var out strings.Builder
		log, end := New(config.Log{Level: "info", Format: format}, &out, new(slog.LevelVar))
		log.With("with", hostile).Info(hostile, "text", hostile, "error", errors.New(hostile),
			slog.Group("group", "list", []string{hostile}), "secret", credential.NewSecret("canary"))
		end()
		got := out.String()
		if strings.Count(got, "\n") != 1 || strings.ContainsFunc(strings.TrimSuffix(got, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: %q", format, got)
		}
		if strings.Contains(got, "canary") {
			t.Errorf("%s prints the secret: %q", format, got)
		}
	}
}

// TestLogOnTerminal: tint with time and colour.
func TestLogOnTerminal(t *testing.T) {
	terminal, read := pseudoTerminal(t)
	log, end := New(config.Log{Level: "info", Format: "auto"}, terminal, new(slog.LevelVar))
	log.Info("hello")
	end()
	got := read()
	if !strings.Contains(got, "\x1b[") || !strings.Contains(got, ":") { // 15:04:05
		t.Errorf("no colour, or no time: %q", got)
	}
	if !strings.Contains(got, "hello") || strings.Contains(got, "msg=") {
		t.Errorf("not tint: %q", got)
	}
}

// pseudoTerminal returns a terminal and what reads a line that was written to it.
func pseudoTerminal(t *testing.T) (*os.File, func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		skip.Unable(t, "no pseudo-terminals here: "+err.Error())
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal, func() string {
		line := make([]byte, 4096)
		n, err := master.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		return string(line[:n])
	}
}
