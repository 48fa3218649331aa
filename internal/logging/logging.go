// Package logging writes the log with slog: for people at a terminal, for the journal, or for a file. No value in a line can take over a
// terminal or look like another line.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/lmittmann/tint"
	"golang.org/x/sys/unix"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
)

// New builds the logger that writes to stream as the configuration wants it. It is safe for concurrent use, and waits for no reader: a
// write to a full pipe hangs until somebody reads. Lines for which there is no room are lost, and counted. level is set, and may be
// changed at any time. end writes the lines that wait, if they are read; the logger may be used after it, and writes nothing.
func New(c config.Log, stream io.Writer, env func(string) (string, bool), level *slog.LevelVar) (log *slog.Logger, end func()) {
	level.UnmarshalText([]byte(c.Level)) // config has refused every other name
	to := destinationOf(stream, env)
	q := &queue{
		direct: slog.New(to.handler(c.Format, slog.LevelInfo)),
		lines:  make(chan func() error, maxWaiting), ending: make(chan struct{}), ended: make(chan struct{}),
	}
	go q.work()
	return slog.New(async{to.handler(c.Format, level), q}), q.close
}

// destination is where lines go.
type destination struct {
	stream   io.Writer
	terminal bool
	journal  bool // the stream is a socket of the journal
	colour   bool
}

func destinationOf(stream io.Writer, env func(string) (string, bool)) destination {
	noColor, _ := env("NO_COLOR")
	d := destination{stream: stream, terminal: IsTerminal(stream), journal: IsJournal(stream, env)}
	d.colour = d.terminal && noColor == ""
	return d
}

// handler writes as the configuration wants it. Colour and a short time are for people at a terminal; the journal has a time of its own,
// and two that differ by a millisecond help nobody; elsewhere it is RFC 3339.
func (d destination) handler(format string, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: replaceAttr(!d.journal)}
	text := slog.NewTextHandler(d.stream, options)
	switch {
	case format == "tint", format == "auto" && d.terminal:
		times := time.RFC3339
		if d.terminal {
			times = time.TimeOnly
		}
		return tint.NewTextHandler(d.stream, &tint.Options{
			Level: level, ReplaceAttr: options.ReplaceAttr, TimeFormat: times, NoColor: !d.colour,
		})
	case format == "json":
		return slog.NewJSONHandler(d.stream, options)
	case format == "auto" && d.journal:
		return &journalHandler{level: level, instead: text}
	}
	return text
}

// replaceAttr drops the time where it is not wanted, and escapes what could take over a terminal or look like another line: tint writes
// values as they are, and so do programs that show the fields of a JSON log.
func replaceAttr(withTime bool) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 && !withTime {
			return slog.Attr{}
		}
		switch a.Value.Kind() {
		case slog.KindString:
			a.Value = escaped(a.Value, a.Value.String())
		case slog.KindAny:
			if _, isLevel := a.Value.Any().(slog.Level); !isLevel {
				a.Value = escaped(a.Value, fmt.Sprint(a.Value.Any()))
			}
		}
		return a
	}
}

// maxValue is the length of a value in bytes. The journal splits a line of more than 48 KiB, and an escaped byte takes up to four.
const maxValue = 8 << 10

// escaped returns value itself unless its text needs escaping, or is too long.
func escaped(value slog.Value, text string) slog.Value {
	if len(text) > maxValue {
		text = credential.Cut(text, maxValue)
		value = slog.StringValue(text)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.ContainsRune(text, '\uFFFD') {
		return slog.StringValue(credential.Escape(text))
	}
	return value
}

// IsJournal reports whether stream is the journal's: systemd says in JOURNAL_STREAM which socket that is. Who inherits the variable and has
// another stream is not meant.
func IsJournal(stream io.Writer, env func(string) (string, bool)) bool {
	file, ok := stream.(*os.File)
	named, set := env("JOURNAL_STREAM")
	var stat unix.Stat_t
	if !ok || !set || unix.Fstat(int(file.Fd()), &stat) != nil {
		return false
	}
	return named == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// IsTerminal reports whether a stream ends at a terminal.
func IsTerminal(stream io.Writer) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
