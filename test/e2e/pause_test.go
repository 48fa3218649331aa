package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// Whatever happens during a pause, nothing is written or run; at its end everything is made good, with activation.
func TestPause(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(w *world.World){
		"nothing":       func(*world.World) {},
		"full check":    checked,
		"reload":        (*world.World).HangUp,
		"restart":       func(w *world.World) { w.Stop(); w.StartDaemon() },
		"kill -9":       func(w *world.World) { w.Kill(); w.StartDaemon() },
		"Vault is down": func(w *world.World) { w.Proxy.Down(); w.Logged("source unreachable"); w.Must(w.Proxy.Up()) },
		"sync": func(w *world.World) {
			w.Exits(1, "paused until", "sync")
			w.Exits(1, "upgrade", "sync", "--instance", "prod")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{})
			w.Exits(0, "paused until", "pause", "--for", "1h", "--reason", "upgrade")
			demand := unrun(w)
			version, secret := w.NewSecret("prod")
			w.Blank("prod")
			w.AwaitStatus("the new version is seen", func(s container.Status) bool { return world.One(s, "prod").WantedVersion == version })
			meanwhile(w)
			checked(w)
			w.Is("prod", "paused", "paused until", "upgrade")
			w.Exits(3, "paused", "status")
			w.Holds("prod", "")
			demand()
			w.Exits(0, "", "resume")
			w.InSync(version)
			w.Holds("prod", secret)
			w.Ran(2, "end", "set")
			w.Ran(2, "end", "reload")
			if got := kindsTold(w, "paused", "resumed", "applied"); !slices.Equal(got, []string{"applied", "paused", "resumed", "applied"}) {
				t.Errorf("history: %v", got)
			}
		})
	}
}

// Drift that another program keeps making is left alone during a pause, and put right at its end.
func TestPauseInADriftWar(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{Settings: "drift: {max_reverts: 3}"})
	w.Exits(0, "paused until", "pause", "--for", "1h")
	demand := unrun(w)
	for range 20 {
		w.Edits("prod", func(d []byte) []byte { return append(d, ' ') })
		if w.Attribute("prod", "authIMSTAClientSecret") != "" {
			w.Blank("prod")
		}
	}
	checked(w)
	w.Is("prod", "paused")
	w.Holds("prod", "")
	demand()
	w.Exits(0, "", "resume")
	w.OnDisk("prod", secrets["prod"])
	w.InSync(1)
	w.Ran(1, "end", "set")
	if got := world.One(w.Pass(), "prod").RevertedTotal; got != 1 {
		t.Errorf("%d reverts", got)
	}
}

// A pause begins after the step under way, which is recorded; its activation waits.
func TestPauseDuringAnApply(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.Faults(`{"write_delay": "10m", "times": 1}`)
	version, secret := w.NewSecret("prod")
	w.WaitsAt("write_delay")
	paused := make(chan string)
	go func() {
		stdout, stderr, _ := w.Command(w.Ctx, "pause", "--for", "1h")
		paused <- stdout + stderr
	}()
	w.Is("prod", "paused")
	w.Release()
	world.Says(t, <-paused, "paused until")
	w.Holds("prod", secret)
	s := w.AwaitStatus("it is recorded", func(s container.Status) bool { return world.One(s, "prod").AppliedVersion == version })
	if in := world.One(s, "prod"); in.State != "paused" {
		t.Errorf("%+v", in)
	}
	checked(w)
	w.Ran(1, "end", "reload")
	w.Exits(0, "", "resume")
	w.InSync(version)
	w.Ran(2, "end", "reload")
}

// byHandAsVaults has nlserver set a credential with the ids that Vault has.
func byHandAsVaults(w *world.World, secret string) {
	w.T.Helper()
	w.Secrets = append(w.Secrets, secret)
	w.SetByHandAs(container.Credential(secret))
}

// Vault is down and a credential has to be set by hand: pause, nlserver, adopt, resume. Nothing is applied over it, also when Vault comes
// back, until there is another version.
func TestBreakGlass(t *testing.T) {
	t.Parallel()
	for _, daemon := range []bool{true, false} {
		t.Run(map[bool]string{true: "daemon", false: "no daemon"}[daemon], func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{})
			w.Proxy.Down()
			if daemon {
				w.Is("prod", "degraded")
			} else {
				w.Stop()
			}
			w.Exits(0, "paused until", "pause", "--for", "2h", "--reason", "Vault is down")
			byHandAsVaults(w, handSecret)
			demand := unrun(w)
			w.Exits(0, "", "adopt")
			w.Exits(0, "", "resume")
			demand()
			if !daemon {
				w.StartDaemon()
			}
			w.Is("prod", "degraded")
			w.Blank("prod")
			w.OnDisk("prod", handSecret) // it is guarded
			w.Must(w.Proxy.Up())
			w.InSync(1)
			w.Ran(2, "end", "set")
			demand = unrun(w) // the drift may have been activated, where the machine is busy
			checked(w)
			w.InSync(1)
			w.Holds("prod", handSecret)
			w.Stop()
			w.StartDaemon()
			w.InSync(1)
			w.Holds("prod", handSecret)
			demand()
			version, secret := w.NewSecret("prod")
			w.InSync(version)
			w.Holds("prod", secret)
			if got := kindsTold(w, "paused", "adopted", "resumed"); !slices.Equal(got, []string{"paused", "adopted", "resumed"}) {
				t.Errorf("history: %v", got)
			}
		})
	}
}

// What was adopted may be another credential than the source's: only another version is applied over it, neither by schedule.reapply nor
// to revert drift.
func TestAdoptedIsNotAppliedOver(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Instances: []string{"prod", "other"},
		Settings: "drift: {revert: nlserver}\nschedule: {reapply: '@every 1s'}"})
	sets := func(instance string) (n int) {
		runs, err := w.Runs()
		w.Must(err)
		for _, r := range runs {
			if r.Event == "end" && r.Kind == "set" && r.Instance == instance {
				n++
			}
		}
		return n
	}
	w.Exits(0, "paused until", "pause", "--for", "1h", "--instance", "prod")
	byHandAsVaults(w, handSecret)
	w.Exits(0, "", "adopt", "--instance", "prod")
	before := sets("prod")
	w.Exits(0, "", "resume", "--instance", "prod")
	reapplied := func() {
		t.Helper()
		n := sets("other")
		w.Eventually("the other instance is applied again", func() bool { return sets("other") >= n+2 })
	}
	reapplied()
	w.Blank("prod")
	w.OnDisk("prod", handSecret)
	w.Must(os.Link(w.File("prod"), w.Path("another-name"))) // such a file is not replaced
	w.Blank("prod")
	w.Is("prod", "drift/drift_stuck", "nlserver is not run for a credential that was adopted", "run adopt", "write a new version")
	reapplied()
	w.Must(os.Remove(w.Path("another-name")))
	checked(w)
	w.OnDisk("prod", handSecret)
	if n := sets("prod") - before; n != 0 {
		t.Errorf("nlserver was run %d times\n%s", n, w.Log())
	}
	_, secret := w.NewSecret("prod")
	w.OnDisk("prod", secret)
}

// What adopt refuses, and what it takes, with a daemon and without.
func TestAdopt(t *testing.T) {
	t.Parallel()
	for _, daemon := range []bool{true, false} {
		t.Run(map[bool]string{true: "daemon", false: "no daemon"}[daemon], func(t *testing.T) {
			t.Parallel()
			w, _, demand := held(t, container.Options{})
			pause := func() { w.Exits(0, "paused until", "pause", "--for", "1h") }
			if !daemon {
				w.Stop()
			}
			w.Exits(1, "authIMSTAClientId, authIMSTAId on disk differs from what the source has", "adopt")
			pause()
			w.Blank("prod")
			w.Exits(1, "the credential on disk is incomplete", "adopt")
			demand()
			byHandAsVaults(w, otherSecret)
			demand = unrun(w)
			w.Exits(0, "", "adopt", "--instance", "prod")
			w.Exits(0, "", "resume")
			if !daemon {
				w.StartDaemon()
			}
			w.InSync(1)
			demand()
			w.Blank("prod")
			w.Reverted("prod", 1)
			w.HangUp()
			w.Kill()
			w.StartDaemon()
			w.InSync(1)
			w.Holds("prod", otherSecret)
			w.Ran(2, "end", "set")
			w.Exits(2, "nobody", "adopt", "--instance", "nobody")
			// Nobody can tell whether its secret is Vault's, so another version is applied whatever it holds.
			version := w.WriteSecret("prod", container.Credential(otherSecret))
			w.InSync(version)
			w.Ran(3, "end", "set")
		})
	}
}

// A version that goes back is what Vault has: adopt compares with it.
func TestAdoptComparesWithAVersionThatGoesBack(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	old := container.Credential("p8e-OldOldOldOldOldOldOldOldOldOldOl")
	old["client_id"] = "ffffffffffffffffffffffffffffffff"
	w.WriteSecret("prod", old)
	metadata, data := w.Metadata("prod"), w.Data("prod")
	version, _ := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(version)
	w.Proxy.AnswerBody("/metadata/", http.StatusOK, metadata)
	w.Proxy.AnswerBody("/data/", http.StatusOK, data)
	w.Is("prod", "blocked/secret_rollback")
	w.Exits(1, "authIMSTAClientId on disk differs from what the source has", "adopt")
	w.Is("prod", "blocked/secret_rollback")
	old["client_secret"], old["client_id"] = "p8e-NewNewNewNewNewNewNewNewNewNewNe", "ffffffffffffffffffffffffffffffff"
	w.Exits(0, "paused until", "pause", "--for", "1h")
	w.Secrets = append(w.Secrets, "p8e-NewNewNewNewNewNewNewNewNewNewNe")
	w.SetByHandAs(old)
	w.Exits(0, "", "adopt")
	w.Exits(0, "", "resume")
	w.InSync(1)
	w.Holds("prod", "p8e-NewNewNewNewNewNewNewNewNewNewNe")
}

// Without a daemon adopt runs nothing either: what the record says is still to be activated stays to be done, also where Vault has a newer
// version.
func TestAdoptRunsNoActivation(t *testing.T) {
	t.Parallel()
	for _, newer := range []bool{false, true} {
		t.Run(fmt.Sprintf("newer version: %v", newer), func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{Settings: `schedule: {activate: "0 3 1 1 *"}`})
			version, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.Is("prod", "activation_pending/window")
			w.Stop()
			w.Reconfigured(func(o *container.Options) { o.Settings = "" })
			if newer {
				version, _ = w.NewSecret("prod")
			}
			demand := unrun(w)
			w.Exits(0, "", "adopt")
			demand()
			w.StartDaemon()
			w.InSync(version)
			w.Holds("prod", secret)
			w.Ran(1, "end", "set")
			w.Ran(1, "end", "reload")
		})
	}
}

// What an older release recorded serves: nothing is applied anew, held or paused.
func TestRecordWithoutTheNewFields(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Stop()
	path := filepath.Join(w.StateDir(), "prod.json")
	text, err := os.ReadFile(path)
	w.Must(err)
	var record map[string]any
	w.Must(json.Unmarshal(text, &record))
	for _, added := range []string{"held", "paused", "activated_version"} {
		delete(record, added)
	}
	text, err = json.Marshal(record)
	w.Must(err)
	w.Must(os.WriteFile(path, text, 0o600))
	demand := unrun(w)
	w.StartDaemon()
	w.InSync(1)
	demand()
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.Ran(1, "end", "set")
	if strings.Contains(w.Running.Log(), "held") {
		t.Error(w.Running.Log())
	}
}
