package trouble_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/trouble"
)

// A reason is logged once, whatever the time in it, and again when it needs a person: at once where the error says so, else when it lasts.
func TestTell(t *testing.T) {
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, nil))
	began := time.Now()
	var it trouble.Trouble
	if it.HasBegun() {
		t.Error("nothing was logged, and it has begun")
	}
	for _, c := range []struct {
		after time.Duration
		err   error
		level string // of the line; empty: there is none
	}{
		{0, errors.New("no answer at 10:00:00"), "WARN"},
		{time.Minute, errors.New("no answer at 10:01:00"), ""},
		{2 * time.Minute, errors.New("no leader"), "WARN"},
		{3 * time.Minute, errors.New("no answer at 10:03:00"), ""},
		{10 * time.Minute, errors.New("no answer at 10:10:00"), "ERROR"},
		{11 * time.Minute, errors.New("no answer at 10:11:00"), ""},
	} {
		text.Reset()
		before := it.NeedsPerson()
		told := it.Tell(log, began.Add(c.after), c.err, "source unreachable", "look at Vault", "attempt", 7)
		line := text.String()
		if told != (c.level != "") || strings.Contains(line, "level="+c.level) != told || strings.Contains(line, "look at Vault") != (c.level == "ERROR") ||
			it.NeedsPerson() != (before || c.level == "ERROR") {
			t.Errorf("after %v, of %q: told %v, %s", c.after, c.err, told, line)
		}
	}
	it = trouble.Trouble{}
	if !it.Tell(log, began, credential.NeedsOperator(errors.New("refused")), "login failed", "") || !it.NeedsPerson() || !it.HasBegun() {
		t.Errorf("what waiting does not end is no error: %s", text.String())
	}
}
