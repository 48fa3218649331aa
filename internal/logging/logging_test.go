package logging

import (
	"errors"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/test/skip"
)

func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

// untimed takes the RFC 3339 times out of lines, which each must have.
func untimed(t *testing.T, lines string) string {
	t.Helper()
	times := regexp.MustCompile(`(?m)^(time=|{"time":"|)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)(",| )`)
	if times, all := len(times.FindAllString(lines, -1)), strings.Count(lines, "\n"); times != all {
		t.Errorf("%d times in %d lines: %.200s", times, all, lines)
	}
	return times.ReplaceAllString(lines, "")
}

// TestLogFormats: what each format writes where there is no terminal: a time, and no colour.
func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{
		"auto": "level=INFO msg=applied instance=prod version=4\n",
		"text": "level=INFO msg=applied instance=prod version=4\n",
		"json": `"level":"INFO","msg":"applied","instance":"prod","version":4}` + "\n",
		"tint": "INF applied instance=prod version=4\n",
	} {
		var out strings.Builder
		log, end := New(config.Log{Level: "info", Format: format}, &out, environment(), new(slog.LevelVar))
		log.Info("applied", "instance", "prod", "version", 4)
		log.Debug("not this")
		end()
		if got := untimed(t, out.String()); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
}

func TestLogLevelChanges(t *testing.T) {
	var out strings.Builder
	level := new(slog.LevelVar)
	log, end := New(config.Log{Level: "error", Format: "text"}, &out, environment(), level)
	log.Warn("before")
	level.Set(slog.LevelDebug)
	log.Debug("after")
	end()
	if got, want := untimed(t, out.String()), "level=DEBUG msg=after\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestLogEscapes: nothing in a value takes over the terminal or begins a line of its own, and no Secret prints.
func TestLogEscapes(t *testing.T) {
	hostile := "a\x1b[2J\nlevel=ERROR msg=forged\u202e\x9b"
	for _, format := range []string{"tint", "text", "json"} {
		var out strings.Builder
		log, end := New(config.Log{Level: "info", Format: format}, &out, environment(), new(slog.LevelVar))
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

// TestLogOnTerminal: tint with time and colour, unless NO_COLOR is there.
func TestLogOnTerminal(t *testing.T) {
	for _, test := range []struct {
		name         string
		env          func(string) (string, bool)
		colour, time bool
	}{
		{"plain", environment(), true, true},
		{"empty NO_COLOR", environment("NO_COLOR", ""), true, true},
		{"NO_COLOR", environment("NO_COLOR", "1"), false, true},
		{"journal of another stream", environment("JOURNAL_STREAM", "8:1"), true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			terminal, read := pseudoTerminal(t)
			log, end := New(config.Log{Level: "info", Format: "auto"}, terminal, test.env, new(slog.LevelVar))
			log.Info("hello")
			end()
			got := read()
			if strings.Contains(got, "\x1b[") != test.colour {
				t.Errorf("colour is not %v: %q", test.colour, got)
			}
			if strings.Contains(got, ":") != test.time { // 15:04:05
				t.Errorf("time is not %v: %q", test.time, got)
			}
			if !strings.Contains(got, "hello") || strings.Contains(got, "msg=") {
				t.Errorf("not tint: %q", got)
			}
		})
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
