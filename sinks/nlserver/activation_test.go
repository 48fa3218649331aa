package nlserver

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
)

func TestActivate(t *testing.T) {
	h := newFakeHome(t, `[ "$2" != bad ] || { echo 'no such module (iRc=9)'; exit 4; }`)
	n := h.server()
	for _, step := range Steps(true, []string{"web", "pipelined", "web"}, "prod") {
		if err := n.activate(t.Context(), step, time.Time{}); err != nil {
			t.Error(err)
		}
	}
	if got, want := h.read("runs"), "config -reload\nrestart web\nrestart pipelined@prod\n"; got != want {
		t.Errorf("ran %q, want %q", got, want)
	}
	mustSay(t, n.activate(t.Context(), stepOf("restart bad"), time.Time{}), "nlserver restart bad: exit status 4: no such module (iRc=9)")
	// A secret that this run does not know, and that has the usual shape.
	h.install(`echo 'loaded p8e-` + strings.Repeat("Ab1_", 8) + ` (iRc=-5)'; exit 1`)
	mustSay(t, n.activate(t.Context(), stepOf("reload"), time.Time{}), "nlserver config -reload: exit status 1: loaded [redacted] (iRc=-5)")
}

func TestActivateUnknownStep(t *testing.T) {
	h := newFakeHome(t, "")
	mustSay(t, h.server().activate(t.Context(), stepOf("flush web"), time.Time{}), `no step "flush web"`)
	if _, err := os.Stat(h.file("runs")); err == nil {
		t.Error("nlserver was run")
	}
}

// While Campaign is upgraded nothing is restarted, so nothing counts against the next restart.
func TestRestartThatCannotBegin(t *testing.T) {
	h := newFakeHome(t, "exit 3")
	n := h.server(func(c *Config) { c.StateDir = t.TempDir() })
	restart := func() error { return n.activate(t.Context(), stepOf("restart web"), time.Time{}) }
	for range 2 {
		mustSay(t, restart(), "exit status 3")
	}
	if err := os.Rename(h.file("bin/nlserver"), h.file("bin/new")); err != nil {
		t.Fatal(err)
	}
	for range failuresBeforePause {
		mustSay(t, restart(), "nlserver restart web: ", "bin/nlserver: no such file", "campaign.nlserver")
	}
	for _, script := range []string{"#!/no/such/sh\n", "#!/bin/sh\nexit 127\n"} {
		h.write("bin/nlserver", script, 0o755)
		for range failuresBeforePause {
			mustSay(t, restart(), "nlserver restart web: exit status 12")
		}
	}
	if err := os.Rename(h.file("bin/new"), h.file("bin/nlserver")); err != nil {
		t.Fatal(err)
	}
	mustSay(t, restart(), "exit status 3")
	mustSay(t, restart(), "failed 3 times in a row")
}

func (b *Binary) activate(ctx context.Context, step credential.Step, since time.Time) error {
	_, err := b.Activate(ctx, step, since)
	return err
}

// stepOf is the step that a text stands for.
func stepOf(text string) (s credential.Step) {
	_ = s.UnmarshalText([]byte(text))
	return s
}

func TestSteps(t *testing.T) {
	modules := []string{"pipelined", "web", "mta", "syslogd", "trackinglogd", "watchdog"}
	want := []string{"reload", "restart pipelined@prod", "restart web", "restart mta@prod", "restart syslogd",
		"restart trackinglogd", "restart watchdog"}
	var got []string
	for _, step := range Steps(true, modules, "prod") {
		got = append(got, step.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Steps(false, nil, "prod"); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

// Which process restarts a module is on record before that begins: a daemon that comes after a kill begins no second one.
func TestRestartIsOnRecordBeforeItBegins(t *testing.T) {
	state := t.TempDir()
	h := newFakeHome(t, `echo "$$ $(cat '`+state+`/web.restart')" >$H/note; cat >>$H/input`)
	n := h.server(func(c *Config) { c.StateDir = state })
	if err := n.activate(t.Context(), stepOf("restart web"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(h.read("note"))
	if len(fields) < 22 || fields[0] != fields[1] || fields[3] != "R" {
		t.Errorf("on record when it began: %q", fields)
	}
	if got := h.read("input"); got != "" {
		t.Errorf("it could read %q", got)
	}
	if left, err := os.ReadFile(filepath.Join(state, "web.restart")); err != nil || string(left) != "ended\n" {
		t.Errorf("on record after it: %q, %v", left, err)
	}
}
