package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// handSecret is what somebody set before there was a daemon.
const handSecret = "p8e-ByHandByHandByHandByHandByHand12"

// unrun returns a function that demands that nlserver was not run since, whatever for.
func unrun(w *world.World) (demand func()) {
	w.T.Helper()
	before, err := w.Runs()
	w.Must(err)
	return func() {
		w.T.Helper()
		now, err := w.Runs()
		w.Must(err)
		if len(now) > len(before) {
			w.T.Fatalf("nlserver was run: %+v\n%s", now[len(before):], w.Log())
		}
	}
}

// kindsTold returns the kinds of the events of a history, without those that are not of interest.
func kindsTold(w *world.World, of ...string) (kinds []string) {
	w.T.Helper()
	stdout, stderr, status := w.RunCommand("history", "--json")
	if status != 0 {
		w.T.Fatalf("history ended with %d: %s", status, stderr)
	}
	for line := range strings.Lines(stdout) {
		var e struct{ Event string }
		w.Must(json.Unmarshal([]byte(line), &e))
		if slices.Contains(of, e.Event) {
			kinds = append(kinds, e.Event)
		}
	}
	return kinds
}

// held sets up a world whose first apply is held, over a credential with other ids than Vault's. demand demands that nlserver was not run.
func held(t *testing.T, options container.Options) (w *world.World, secret string, demand func()) {
	t.Helper()
	w = world.New(t, options)
	_, secret = w.NewSecret("prod")
	w.SetByHand(handSecret)
	demand = unrun(w)
	w.StartDaemon()
	w.Is("prod", "held", "run sync", "run adopt")
	versionRead(w)
	return w, secret, demand
}

// versionRead waits until the first version was read, with which others are compared.
func versionRead(w *world.World) {
	w.T.Helper()
	w.AwaitStatus("a version is read", func(s container.Status) bool { return world.One(s, "prod").WantedVersion != 0 })
}

// checked has the daemon do a full check, which is no operator's order, and waits until it was made.
func checked(w *world.World) {
	w.T.Helper()
	w.Proxy.Requests()
	w.Signal(hurry)
	w.Must(w.Proxy.Await(w.Ctx, 2, func(r vaulttest.Request) bool { return strings.Contains(r.Path, "/metadata/") }))
}

// A first start over a credential that somebody else set runs nothing: not over restarts, a reload, kill -9, full checks, or a new version
// with the same credential. It guards what is there meanwhile.
func TestFirstStartHolds(t *testing.T) {
	t.Parallel()
	w, secret, demand := held(t, container.Options{})
	for name, do := range map[string]func(){
		"check":   func() { checked(w) },
		"reload":  w.HangUp,
		"restart": func() { w.Stop(); w.StartDaemon() },
		"kill -9": func() { w.Kill(); w.StartDaemon() },
		"the same credential": func() {
			version := w.WriteSecret("prod", container.Credential(secret))
			w.AwaitStatus("it is seen", func(s container.Status) bool { return world.One(s, "prod").WantedVersion == version })
		},
	} {
		do()
		w.Is("prod", "held")
		w.Blank("prod")
		w.OnDisk("prod", handSecret)
		w.AwaitStatus("held after "+name, func(s container.Status) bool {
			return world.One(s, "prod").State == "held" && world.One(s, "prod").AppliedVersion == 0
		})
		demand()
	}
	w.Exits(3, "held", "status")
	w.Exits(3, "", "diff")
	demand()
	if got := kindsTold(w, "held", "applied", "activated", "adopted"); !slices.Equal(got, []string{"held"}) {
		t.Errorf("history: %v", got)
	}
}

// What a first apply waits for.
func TestHeldIsReleased(t *testing.T) {
	t.Parallel()
	for name, release := range map[string]func(w *world.World) (version int, secret string){
		"sync": func(w *world.World) (int, string) { w.Exits(0, "in_sync", "sync"); return 1, "" },
		"sync of the instance": func(w *world.World) (int, string) {
			w.Exits(0, "in_sync", "sync", "--instance", "prod")
			return 1, ""
		},
		"sync without a daemon": func(w *world.World) (int, string) {
			w.Stop()
			w.Exits(0, "in_sync", "sync")
			w.StartDaemon()
			return 1, ""
		},
		"a newer version": func(w *world.World) (int, string) { return w.NewSecret("prod") },
		"a newer version while no daemon ran": func(w *world.World) (int, string) {
			w.Stop()
			version, secret := w.NewSecret("prod")
			w.StartDaemon()
			return version, secret
		},
		"a newer version after the key was lost": func(w *world.World) (int, string) {
			w.Stop()
			w.Must(os.Remove(filepath.Join(w.StateDir(), "digest.key")))
			w.StartDaemon()
			checked(w)
			w.Is("prod", "held") // nobody can tell whether it is another
			return w.NewSecret("prod")
		},
		"first_apply: now": func(w *world.World) (int, string) {
			w.Reconfigured(func(o *container.Options) { o.Campaign = "first_apply: now" })
			w.HangUp()
			return 1, ""
		},
		"a crash between the order and the apply": func(w *world.World) (int, string) {
			w.Faults(`{"write_delay": "10m", "times": 1}`)
			ordered := make(chan struct{})
			go func() { defer close(ordered); w.Command(w.Ctx, "sync") }()
			run := w.WaitsAt("write_delay")
			w.Kill()
			<-ordered
			w.Must(syscall.Kill(run.PID, syscall.SIGKILL))
			w.StartDaemon()
			return 1, ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, secret, demand := held(t, container.Options{})
			demand()
			version, newer := release(w)
			if newer != "" {
				secret = newer
			}
			w.InSync(version)
			w.Holds("prod", secret)
			w.Ran(1, "end", "reload")
		})
	}
}

// An incomplete credential cannot work, and is applied over at once.
func TestFirstStartOverAnIncompleteCredential(t *testing.T) {
	t.Parallel()
	for _, attribute := range []string{"authIMSTAClientId", "authIMSTAClientSecret", "authIMSTAId"} {
		t.Run(attribute, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			_, secret := w.NewSecret("prod")
			w.SetByHand(handSecret)
			value := w.Attribute("prod", attribute)
			w.Edits("prod", func(d []byte) []byte { return world.Replaced(t, d, attribute+`="`+value+`"`, attribute+`=""`) })
			w.StartDaemon()
			w.InSync(1)
			w.Holds("prod", secret)
		})
	}
}

// A record that is gone while a version waits has the first apply held, as at a first start.
func TestLostRecordHolds(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Stop()
	w.Must(os.Remove(filepath.Join(w.StateDir(), "prod.json")))
	_, second := w.NewSecret("prod")
	demand := unrun(w)
	w.StartDaemon()
	w.Is("prod", "held")
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	demand()
	w.Exits(0, "in_sync, version 2 applied", "sync")
	w.Holds("prod", second)
}

// Sources that have no versions: any other content releases, the same does not.
func TestHeldWithoutVersions(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, w *world.World, write func(secret string)) {
		w.Secrets = append(w.Secrets, otherSecret)
		w.SetByHand(handSecret)
		first := "p8e-FirstFirstFirstFirstFirstFirst12"
		w.Secrets = append(w.Secrets, first)
		write(first)
		demand := unrun(w)
		w.StartDaemon()
		w.Is("prod", "held")
		versionRead(w)
		write(first)
		w.Stop()
		w.StartDaemon()
		versionRead(w)
		w.Is("prod", "held")
		demand()
		write(otherSecret)
		w.OnDisk("prod", otherSecret)
		w.Is("prod", "in_sync")
	}
	t.Run("KV version 1", func(t *testing.T) {
		t.Parallel()
		w := world.New(t, container.Options{})
		mount, err := w.Vault.MountKV(w.Ctx, "team/held", 1)
		w.Must(err)
		w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, vaulttest.ReadPolicyAt(mount+"/oauth")))
		w.Reconfigured(func(o *container.Options) {
			o.Secrets = map[string]string{"prod": "mount: " + mount + ", path: oauth, kv_version: 1"}
		})
		start(t, w, func(secret string) {
			w.Must(w.Vault.Call(w.Ctx, http.MethodPost, mount+"/oauth", container.Credential(secret), nil))
		})
	})
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		v := newVolume(t, container.Options{}, "")
		start(t, v.World, func(secret string) {
			text, err := json.Marshal(container.Credential(secret))
			v.Must(err)
			v.Must(os.WriteFile(v.file, text, 0o600))
		})
	})
}

// drift.revert: nlserver splices while the first apply is held, and where that cannot work the drift stays and is told.
func TestHeldDrift(t *testing.T) {
	t.Parallel()
	w, _, demand := held(t, container.Options{Settings: "drift: {revert: nlserver}"})
	w.Blank("prod")
	w.OnDisk("prod", handSecret)
	w.Is("prod", "held")
	demand()
	w.Must(os.Link(w.File("prod"), w.Path("another-name"))) // such a file is not replaced
	w.Blank("prod")
	w.Is("prod", "drift", "nlserver is not run while the first apply is held", "adopt")
	checked(w)
	w.Is("prod", "drift")
	w.Stop()
	w.StartDaemon()
	w.Is("prod", "drift")
	demand()
	if got := kindsTold(w, "drift_left"); len(got) == 0 {
		t.Error("drift that stays is not in the history")
	}
	w.Must(os.Remove(w.Path("another-name")))
	checked(w)
	w.OnDisk("prod", handSecret)
	w.Is("prod", "held")
	demand()
}
