package faults_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// A newer release has written the state, and this one goes on with it: nothing is applied anew, nothing is forgotten, and what it does
// not know is written back.

// fromTheFuture is what a newer release might add to an object.
var fromTheFuture = map[string]any{"future_flag": true, "future_object": map[string]any{"a": []any{1.5, "x", nil}}, "future_text": "é<&"}

// upgrade adds fields to a file of the state directory: to the object, and to every object in it.
func upgrade(w *world.World, name string) {
	w.T.Helper()
	state := readState(w, name)
	upgradeObject(state)
	if fields, ok := state["fields"].(map[string]any); ok {
		fields["future_field"] = "key"
	}
	text, err := json.Marshal(state)
	w.Must(err)
	w.Must(os.WriteFile(filepath.Join(w.StateDir(), name), text, 0o600))
}

func upgradeObject(value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			if key != "fields" { // which maps names to keys
				upgradeObject(inner)
			}
		}
		maps.Copy(value, fromTheFuture)
	case []any:
		for _, inner := range value {
			upgradeObject(inner)
		}
	}
}

func readState(w *world.World, name string) map[string]any {
	w.T.Helper()
	text, err := os.ReadFile(filepath.Join(w.StateDir(), name))
	w.Must(err)
	var state map[string]any
	if err := json.Unmarshal(text, &state); err != nil {
		w.T.Fatalf("%s: %v\n%s", name, err, text)
	}
	return state
}

// keeps demands that an object in the state has the fields of the newer release; path leads to it.
func keeps(w *world.World, name string, path ...string) {
	w.T.Helper()
	object := readState(w, name)
	for _, key := range path {
		inner := object[key]
		if list, ok := inner.([]any); ok && len(list) > 0 {
			inner = list[0]
		}
		object, _ = inner.(map[string]any)
	}
	for key, value := range fromTheFuture {
		if !reflect.DeepEqual(object[key], value) {
			w.T.Errorf("%s, %v: %s is %v, want %v", name, path, key, object[key], value)
		}
	}
}

func TestRecordOfANewerRelease(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{Settings: "drift: {max_reverts: 2}"})
	for n := range 2 {
		w.Blank("prod")
		w.Reverted("prod", n+1)
	}
	reloads := w.CountRuns("end", "reload")
	w.Stop()
	upgrade(w, "prod.json")
	w.StartDaemon()
	w.InSync(1)
	w.Blank("prod")
	w.Is("prod", "drift/drift_brake")
	w.Pass()
	w.Is("prod", "drift") // the brake holds
	w.Ran(1, "end", "set")
	w.Ran(reloads, "end", "reload")
	w.HangUp()
	w.OnDisk("prod", secrets["prod"])
	w.InSync(1)
	w.Ran(1, "end", "set")
	w.Stop() // which writes what was counted
	if total := readState(w, "prod.json")["reverted_total"]; total != 3.0 {
		t.Errorf("reverted_total is %v: the record was not written", total)
	}
	for _, path := range [][]string{nil, {"version"}, {"attributes"}} {
		keeps(w, "prod.json", path...)
	}
	w.StartDaemon()
	_, secret := w.NewSecret("prod")
	w.InSync(2)
	w.Holds("prod", secret)
	w.Stop()
	keeps(w, "prod.json")
	// What was known of the old credential does not stick to the new one.
	record := readState(w, "prod.json")
	attribute := record["attributes"].([]any)[0].(map[string]any)
	if record["version"].(map[string]any)["future_flag"] != nil || attribute["future_flag"] != nil {
		t.Errorf("fields of the version before are in %v", record)
	}
	w.StartDaemon()
}

// A record that has no bytes of values, as releases before wrote it, serves: the quotes that are found are kept.
func TestRecordOfAnOlderRelease(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	whole := w.Read("prod")
	w.Stop()
	record := readState(w, "prod.json")
	for _, attribute := range record["attributes"].([]any) {
		delete(attribute.(map[string]any), "raw")
	}
	text, err := json.Marshal(record)
	w.Must(err)
	w.Must(os.WriteFile(filepath.Join(w.StateDir(), "prod.json"), text, 0o600))
	w.StartDaemon()
	w.InSync(1)
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.InSync(1)
	w.Ran(1, "end", "set")
	if got := w.Read("prod"); !slices.Equal(got, whole) {
		t.Error(world.FirstDifference(whole, got))
	}
}

func TestRefusedSecretIDOfANewerRelease(t *testing.T) {
	t.Parallel()
	const file = "refused-secret-id.json"
	w, right := staleWorld(t, container.Options{})
	w.StartDaemon()
	w.Is("prod", "degraded/login_refused", "put a new secret-id there")
	w.Stop()
	upgrade(w, file)
	w.Proxy.Requests()
	w.StartDaemon()
	w.Is("prod", "degraded/login_refused", "put a new secret-id there")
	if n := logins(w); n != 0 {
		t.Errorf("%d logins with a secret-id that was refused before\n%s", n, w.Log())
	}
	w.Signal(syscall.SIGUSR1)
	w.Must(w.Proxy.Await(w.Ctx, 1, vaulttest.Request.Login))
	w.Eventually("the second refusal is noted", func() bool { return readState(w, file)["tries"] == 2.0 })
	keeps(w, file)
	recovers(w, right)
	keeps(w, file)
}

func TestKeptSecretIDOfANewerRelease(t *testing.T) {
	t.Parallel()
	const file = "secret-id.key"
	w := world.New(t, container.Options{})
	w.Reconfigured(func(o *container.Options) { o.Login = w.AppRole() + ", secret_id_wrapped: true" })
	wrap := func() {
		token := w.Vault.MustWrappedSecretID(w.RoleID, time.Hour)
		w.Secrets = append(w.Secrets, token)
		w.Must(os.WriteFile(w.SecretID, []byte(token+"\n"), 0o600))
	}
	wrap()
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Stop()
	upgrade(w, file)
	before := readState(w, file)["current"].(map[string]any)["from"]
	wrap()
	w.StartDaemon()
	w.NewSecret("prod")
	w.InSync(2)
	w.Eventually("the new secret-id is kept, and the one before forgotten", func() bool {
		state := readState(w, file)
		return state["previous"] == nil && state["current"].(map[string]any)["from"] != before
	})
	keeps(w, file)
}
