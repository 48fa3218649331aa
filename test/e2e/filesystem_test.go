package e2e_test

import (
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
	"campaign-credsync/test/filesystem"
	"campaign-credsync/test/world"
)

// On each file system that Campaign's hosts have: a version is applied, drift is reverted, by a splice and by its event, and nothing is
// said to be missing.
func TestFileSystems(t *testing.T) {
	world.NeedsRoot(t)
	for _, kind := range filesystem.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Setenv("TMPDIR", filesystem.New(t, kind, nil))
			w, _ := world.Started(t, container.Options{Settings: "schedule: {verify: '@every 1h'}"})
			_, second := w.NewSecret("prod")
			w.InSync(2)
			w.Holds("prod", second)
			right := w.Read("prod")
			for i, style := range []editors.Style{editors.InPlace, editors.Rename, editors.Pieces} {
				drifted := world.Replaced(t, right, w.Attribute("prod", "authIMSTAClientSecret"), "")
				w.Must(editors.Write(w.File("prod"), style, drifted))
				w.AwaitStatus("the revert", func(s container.Status) bool {
					return world.One(s, "prod").RevertedTotal == i+1 && s.Is("in_sync")
				})
				w.Holds("prod", second)
			}
			w.Ran(2, "end", "set")
			if log := strings.ReplaceAll(w.Log(), `level=WARN msg="drift reverted"`, ""); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") {
				t.Errorf("something is not to be had\n%s", w.Log())
			}
			w.Kill()
			w.StartDaemon()
			w.InSync(2)
			w.Ran(2, "end", "set")
		})
	}
}
