package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// told is the YAML of a program that appends what it is told to a file, and its environment to another.
func told(w *world.World) string {
	return fmt.Sprintf(`notify: {exec: [/bin/sh, -c, 'cat >>"$0"; env >"$0.env"', %s]}`, w.Path("told"))
}

// What happens is told once, in its order, with the state after it: to the history, and to the program of notify.exec, which sees nothing of
// the daemon's environment.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Settings: "watch: {poll: 1s}"})
	notify := told(w)
	w.Must(w.Reconfigure(w.Ctx, func(o *container.Options) { o.Settings += "\n" + notify }))
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Happened("activated")
	w.Blank("prod")
	drift := w.Happened("drift_reverted")
	w.WriteSecret("prod", map[string]any{"client_id": "x"})
	w.Happened("blocked")
	w.NewSecret("prod")
	w.InSync(3)
	w.Happened("activated")
	w.Proxy.Down()
	w.Happened("degraded")
	w.Exits(0, "", "pause", "--for", "1h", "--reason", "over the weekend p8e-0123456789abcdef")
	w.Happened("paused")
	w.Exits(0, "", "resume")
	w.Happened("resumed")
	w.Must(w.Proxy.Up())
	w.Happened("recovered")
	w.InSync(3)
	away := w.Read("prod")
	w.Must(os.Rename(w.File("prod"), w.Path("away")))
	w.Happened("degraded")
	w.Must(os.Rename(w.Path("away"), w.File("prod")))
	w.Happened("recovered")
	w.InSync(3)
	w.Exits(0, "", "sync")
	asked := w.Happened("sync_asked")
	w.Exits(0, "", "adopt")
	w.Happened("adopted")
	w.HangUp()
	w.Happened("reloaded")
	good, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, append(good, "\nnonsense: true"...), 0o600))
	w.Signal(syscall.SIGHUP)
	w.Logged("configuration not reloaded")
	w.Must(os.WriteFile(w.Config, good, 0o600))
	w.Stop()

	var got []string
	all := w.History() // without a daemon
	for _, e := range all {
		if got = append(got, e.String()); e.Time.IsZero() || e.Host == "" || strings.Contains(e.Text, "p8e-") {
			t.Errorf("%+v", e)
		}
	}
	reverted := []string{"drift_reverted prod in_sync 1"}
	// On a busy machine it may have stayed for 2 s, and is activated.
	if late := []string{"drift_reverted prod activation_pending activation_waits 1", "activated prod in_sync 1"}; slices.Contains(got, late[0]) {
		reverted = late
	}
	want := slices.Concat([]string{
		"started 0", "applied prod activation_pending activation_waits 1", "activated prod in_sync 1",
	}, reverted, []string{
		"blocked prod blocked secret_malformed 2", "unblocked prod pending apply_waits 3", "applied prod activation_pending activation_waits 3",
		"activated prod in_sync 3",
		"degraded prod degraded vault_unreachable 3", "paused prod paused paused 3", "resumed prod degraded vault_unreachable 3", "recovered prod in_sync 3",
		"degraded prod degraded file_missing 3", "recovered prod in_sync 3",
		"sync_asked prod in_sync 3", "adopted prod in_sync 3",
		"reloaded 0", "reload_rejected 0", "stopped 0",
	})
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(drift.Attributes) != 1 || drift.Attributes[0].Name != "authIMSTAClientSecret" || drift.Attributes[0].Change != "emptied" ||
		drift.FileOwner == "" || drift.FileChangedAt == nil || drift.FileChangedAt.After(drift.Time) {
		t.Errorf("%+v", drift)
	}
	if asked.ByUID == nil || *asked.ByUID != os.Getuid() {
		t.Errorf("%+v", asked)
	}
	if len(away) == 0 {
		t.Error("the file was empty")
	}

	input, err := os.ReadFile(w.Path("told"))
	w.Must(err)
	sum := 0
	for _, e := range w.EventsIn(string(input)) {
		sum += max(e.Count, 1)
		if !slices.ContainsFunc(all, func(known world.Event) bool { return known.Time.Equal(e.Time) && known.String() == e.String() }) {
			t.Errorf("the program was told of what is not in the history: %+v", e)
		}
	}
	if sum != len(all) {
		t.Errorf("the program was told of %d events, want %d\n%s", sum, len(all), input)
	}
	environment, err := os.ReadFile(w.Path("told.env"))
	w.Must(err)
	for line := range strings.Lines(string(environment)) {
		name, _, _ := strings.Cut(line, "=")
		if !slices.Contains([]string{"PATH", "HOME", "LANG", "TZ", "PWD", "OLDPWD", "SHLVL", "_"}, name) {
			t.Errorf("the program has %s in its environment", name)
		}
	}
	if one := w.History("--instance", "prod", "--since", "1h"); len(one) != len(all)-4 {
		t.Errorf("of the instance: %v", one)
	}
	if one := w.History("--since", "1ns"); len(one) > 0 {
		t.Errorf("of the last nanosecond: %v", one)
	}
}

// A first apply that is held, and what an operator says, is told of; of several instances, each.
func TestEventsOfAHeldFirstApply(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Instances: []string{"prod", "stage"}})
	w.SetByHand("p8e-SetByHandSetByHandSetByHandSetBy")
	w.NewSecret("prod")
	w.NewSecret("stage")
	w.StartDaemon()
	w.Is("prod", "held")
	w.OneInSync("stage", 1)
	w.Exits(0, "", "sync")
	w.InSync(1)
	w.Stop()
	var of [2][]string
	for _, e := range w.History() {
		if i := slices.Index(w.Instances, e.Instance); i >= 0 {
			of[i] = append(of[i], e.Kind+" "+e.State)
		}
	}
	want := [2][]string{
		{"held held", "sync_asked pending", "applied activation_pending", "activated in_sync"},
		{"applied activation_pending", "activated in_sync", "sync_asked in_sync"},
	}
	if fmt.Sprint(of) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", of, want)
	}
}

// Drift that is not reverted is told of once, with the file's owner, and so is the brake.
func TestEventsOfDriftThatIsLeft(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]struct{ settings, reason string }{
		"drift_left": {"drift: {revert: alert}", "drift_alert"},
		"brake":      {"drift: {max_reverts: 1}", "drift_brake"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w, secrets := world.Started(t, container.Options{Settings: c.settings})
			if kind == "brake" {
				w.Blank("prod")
				w.OnDisk("prod", secrets["prod"])
			}
			w.Blank("prod")
			w.Is("prod", "drift")
			e := w.Happened(kind)
			w.Pass()
			w.Stop()
			n := 0
			for _, other := range w.History() {
				if other.Kind == kind {
					n++
				}
			}
			if n != 1 || e.State != "drift" || e.Reason != c.reason || e.FileOwner == "" || e.FileChangedAt == nil || len(e.Attributes) != 1 {
				t.Errorf("told %d times of %+v", n, e)
			}
		})
	}
}

// What is done where no daemon runs is in the history, too.
func TestHistoryWithoutADaemon(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	w.NewSecret("prod")
	for _, args := range [][]string{{"sync"}, {"pause", "--for", "1h"}, {"resume"}, {"resume"}, {"adopt"}} {
		w.Exits(0, "", args...)
	}
	var got []string
	for _, e := range w.History("--instance", "prod") {
		if got = append(got, e.Kind); (e.ByUID == nil) != (e.Kind == "applied" || e.Kind == "activated") {
			t.Errorf("%+v", e)
		}
	}
	if want := []string{"sync_asked", "applied", "activated", "paused", "resumed", "adopted"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
