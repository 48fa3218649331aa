package logging

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// journalHandler sends records to the journal in its own protocol: each with its priority, and a field for each attribute, so that
// "journalctl -p err" and "journalctl INSTANCE=prod" work. The message shows the attributes too, as journalctl shows nothing else
// unless it is asked to.
type journalHandler struct {
	level   slog.Leveler
	attrs   []slog.Attr
	instead slog.Handler // for what the journal does not take
}

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	message, fields := entry(r, h.attrs)
	if err := journal.Send(message, priorityOf(r.Level), fields); err != nil {
		return h.instead.Handle(ctx, r)
	}
	return nil
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.level, append(slices.Clip(h.attrs), attrs...), h.instead.WithAttrs(attrs)}
}

// WithGroup has no use here: no attribute is in a group.
func (h *journalHandler) WithGroup(string) slog.Handler { return h }

// entry is a record as the journal takes it.
func entry(r slog.Record, attrs []slog.Attr) (message string, fields map[string]string) {
	fields = map[string]string{"SYSLOG_IDENTIFIER": "campaign-credsync"}
	var line bytes.Buffer
	replace := replaceAttr(false)
	text := slog.NewTextHandler(&line, &slog.HandlerOptions{Level: r.Level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		a = replace(groups, a)
		switch a.Key {
		case "", slog.LevelKey:
			return slog.Attr{}
		case slog.MessageKey:
			message = a.Value.String()
			return slog.Attr{}
		}
		fields[strings.ToUpper(a.Key)] = a.Value.String()
		return a
	}})
	text.WithAttrs(attrs).Handle(context.Background(), r) // into memory, which never fails
	return strings.TrimSpace(message + " " + line.String()), fields
}

func priorityOf(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
