package e2e_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// dryRun is what sync --dry-run --json prints of the instance prod.
type dryRun struct {
	Name        string
	Applied     int `json:"applied_version"`
	Held        bool
	PausedUntil *time.Time `json:"paused_until"`
	Problem     string
	Steps       []struct {
		Action, Module, Command, Why string
		Version                      int
		Attributes                   []string
		NotBefore                    *time.Time `json:"not_before"`
	}
}

// looks runs it, and demands that nothing is written and that no secret is shown. nlserver may be asked what it offers.
func looks(w *world.World, status int, args ...string) (p dryRun, does []string) {
	w.T.Helper()
	before := written(w)
	stdout := w.Exits(status, "", append([]string{"sync", "--dry-run", "--json"}, args...)...)
	if after := written(w); after != before {
		w.T.Errorf("something was written:\n%s\nbefore\n%s", after, before)
	}
	var all struct{ Instances []dryRun }
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || len(all.Instances) != 1 {
		w.T.Fatalf("%v: %s", err, stdout)
	}
	for _, s := range all.Instances[0].Steps {
		does = append(does, s.Action+": "+s.Command)
		if s.Why == "" {
			w.T.Errorf("nothing says why: %s", stdout)
		}
	}
	return all.Instances[0], does
}

// written is everything below the state directory and Campaign's home but what the stand-in notes of its runs.
func written(w *world.World) string {
	lines := strings.SplitAfter(w.Snapshot(), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "/var/standin") }), "")
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{
		Campaign: "activate: {restart: [pipelined, web]}", Settings: "log: {level: warn, format: text}",
	})
	activation := []string{"reload: nlserver config -reload", "restart: nlserver restart pipelined@prod", "restart: nlserver restart web"}
	all := append([]string{"apply: nlserver config -instance:prod -setimsoauth"}, activation...)

	// Before the first run, over a credential that somebody else set: sync is the word that its apply waits for.
	w.SetByHand("set-by-hand")
	_, secret := w.NewSecret("prod")
	p, does := looks(w, 3)
	if !p.Held || p.Applied != 0 || !slices.Equal(does, all) || !strings.Contains(p.Steps[0].Why, "held") || p.Steps[0].Version != 1 {
		t.Errorf("held: %+v", p)
	}
	w.Exits(3, "prod: would run nlserver restart pipelined@prod: ", "sync", "--dry-run")
	w.Exits(3, "prod: the first apply is held", "diff")
	w.Exits(0, "version 1 applied", "sync")
	w.Holds("prod", secret)
	if p, does = looks(w, 0); len(does) > 0 || p.Applied != 1 || p.Held {
		t.Errorf("in sync: %+v", p)
	}

	// Drift is put back without nlserver; the processes may have read it.
	w.Blank("prod")
	p, does = looks(w, 3)
	if !slices.Equal(does, append([]string{"revert: "}, activation...)) || !slices.Equal(p.Steps[0].Attributes, []string{"authIMSTAClientSecret"}) {
		t.Errorf("drift: %+v", p)
	}
	w.Exits(0, "in_sync", "sync")

	// A pause has sync do nothing and fail, and so does the dry run.
	w.NewSecret("prod")
	w.Exits(0, "paused until", "pause", "--for", "2h", "--reason", "maintenance")
	p, does = looks(w, 1)
	if len(does) > 0 || p.PausedUntil == nil || time.Until(*p.PausedUntil) > 2*time.Hour || !strings.Contains(p.Problem, "maintenance") {
		t.Errorf("paused: %+v", p)
	}
	w.Exits(1, "prod: sync fails: paused until ", "sync", "--dry-run")
	w.Exits(1, "paused until", "sync")
	w.Exits(3, "version 2, which waits", "diff")
	w.Holds("prod", secret)
	w.Exits(0, "", "resume")

	// What a failed activation left, and nothing else.
	w.Faults(`{"reload_fail": true}`)
	w.Exits(1, "activation_pending", "sync")
	w.Faults("")
	if p, does = looks(w, 3); !slices.Equal(does, activation) {
		t.Errorf("activation is left: %+v", p)
	}
	w.Exits(0, "version 2 applied", "sync")

	// The option that is configured, and an activation that waits for its time: only the apply is to be done now.
	w.Reconfigured(func(o *container.Options) {
		o.Campaign += ", command: setimsauth"
		o.Settings += "\nschedule: {activate: '0 3 1 1 *'}"
	})
	w.NewSecret("prod")
	p, does = looks(w, 3)
	if len(does) != 4 || does[0] != "apply: nlserver config -instance:prod -setimsauth" || p.Steps[0].NotBefore != nil || p.Steps[1].NotBefore == nil {
		t.Errorf("activation has its time: %+v", p)
	}
	w.Exits(0, "activation_pending", "sync")
	if _, does = looks(w, 0); !slices.Equal(does, activation) {
		t.Errorf("only activation is left, and waits for its time: %q", does)
	}
	if n := w.Tokens(); n != 0 {
		t.Errorf("commands left %d tokens", n)
	}
}
