// Package trouble logs what fails again and again: each reason once.
package trouble

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
)

const (
	// alarmAfter is how long trouble that may end by itself is a warning.
	alarmAfter = 10 * time.Minute
	// keptReasons is how many reasons in a row are remembered: nodes of a cluster without a leader give three or four, in turn.
	keptReasons = 8
)

// timeOfDay is what makes the same reason look new: nlserver's output and retry times carry it.
var timeOfDay = lazyregexp.New(`(\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d(\.\d+)?Z?`)

// Trouble is what goes wrong again and again, as the log has it. The zero value has not begun.
type Trouble struct {
	since  time.Time
	level  slog.Level // the highest of its lines
	logged []string   // reasons that were logged, the newest last
}

// HasBegun reports whether anything was logged of it.
func (t *Trouble) HasBegun() bool { return !t.since.IsZero() }

// NeedsPerson reports whether it was logged as an ERROR.
func (t *Trouble) NeedsPerson() bool { return t.level >= slog.LevelError }

// Tell logs what it is: a reason once, and once more when it needs a person that did not need one before. With it goes the remedy, which is
// empty where the error says what a person does about it. It reports whether it has.
func (t *Trouble) Tell(log *slog.Logger, now time.Time, err error, what, remedy string, attrs ...any) bool {
	if t.since.IsZero() {
		t.since = now
	}
	level := slog.LevelWarn
	if credential.IsForOperator(err) || now.Sub(t.since) >= alarmAfter {
		level = slog.LevelError
	}
	reason := timeOfDay().ReplaceAllString(err.Error(), "")
	told := slices.Contains(t.logged, reason)
	if told && level <= t.level {
		return false
	}
	if !told {
		t.logged = append(slices.Clone(t.logged), reason)
		t.logged = t.logged[max(0, len(t.logged)-keptReasons):]
	}
	t.level = max(t.level, level)
	attrs = append(slices.Clone(attrs), "reason", err)
	if level == slog.LevelError && remedy != "" {
		attrs = append(attrs, "remedy", remedy)
	}
	log.Log(context.Background(), level, what, attrs...)
	return true
}
