package sync_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

var lost = credential.Proof{Result: credential.ProofMissing, Text: "it does not run", Before: []string{"1 5"}}

// wantProof wants a state, and whether it is proven.
func (w *world) wantProof(state credsync.State, reason credential.Reason, proven bool) {
	w.t.Helper()
	w.settle()
	if is := w.only(); is.State != state || is.Reason != reason || is.Proven != proven {
		w.t.Fatalf("%s, %s, proven %v (%s); want %s, %s, %v\n%s", is.State, is.Reason, is.Proven, is.LastError, state, reason, proven, w.log)
	}
}

// A module that does not come back is looked for at least every minute, also after a restart of the daemon and a reload, and is never
// restarted for that. It is a warning first and an error after ten minutes, once each.
func TestModuleIsLookedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.active.steps = []string{"restart web"}
		w.active.proves("web", lost)
		w.source.rotate("one")
		w.start()
		defer func() { w.stop() }()
		w.wantActivated("reload", "restart web")
		w.wantProof(credsync.StateActivationPending, credential.ReasonActivationUnproven, false)
		time.Sleep(30 * time.Minute)
		w.settle()
		if w.active.looks < 29 || w.told(`level=WARN msg="module not seen`) != 1 || w.told("level=ERROR") != 1 {
			t.Errorf("%d looks in half an hour\n%s", w.active.looks, w.log)
		}
		w.reload(unchanged)
		w.wantProof(credsync.StateActivationPending, credential.ReasonActivationUnproven, false)
		w.stop()
		w.start()
		w.wantProof(credsync.StateActivationPending, credential.ReasonActivationUnproven, false)
		w.active.proves("web", credential.Proof{Result: credential.ProofSeen})
		time.Sleep(time.Minute)
		w.wantProof(credsync.StateInSync, "", true)
		w.wantActivated()
	})
}

// What an older release activated is not proven by what was seen before.
func TestProofOfAnEarlierActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.active.steps = []string{"restart web"}
		w.active.proves("web", credential.Proof{Result: credential.ProofSeen})
		w.source.rotate("one")
		w.start()
		defer func() { w.stop() }()
		time.Sleep(time.Second)
		w.wantProof(credsync.StateInSync, "", true)
		w.stop()
		var record map[string]any
		if err := json.Unmarshal([]byte(w.recordOnDisk("prod")), &record); err != nil {
			t.Fatal(err)
		}
		record["activation_since"], record["activated_at"] = time.Now(), time.Now()
		text, _ := json.Marshal(record)
		if err := os.WriteFile(filepath.Join(w.dir, "prod.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.wantProof(credsync.StateInSync, "", false)
	})
}

// One module that cannot be judged is enough: nothing is called proven. One that is not there takes nothing away.
func TestProvenIsAll(t *testing.T) {
	for result, want := range map[credential.ProofResult]bool{credential.ProofAbsent: true, credential.ProofUnknown: false, credential.ProofSeen: true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "prod")
			w.active.steps = []string{"restart web", "restart pipelined@%"}
			w.active.proves("web", credential.Proof{Result: credential.ProofSeen})
			w.active.proves("pipelined@prod", credential.Proof{Result: result})
			w.source.rotate("one")
			w.start()
			defer func() { w.stop() }()
			w.wantProof(credsync.StateInSync, "", want)
		})
	}
}

// What somebody else has put on disk is not proven by what was seen before it was adopted.
func TestAdoptedIsNotProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.config.Revert = credsync.RevertAlert
		w.active.steps = []string{"restart web"}
		w.active.proves("web", credential.Proof{Result: credential.ProofSeen})
		w.source.rotate("one")
		w.start()
		defer func() { w.stop() }()
		w.wantProof(credsync.StateInSync, "", true)
		w.sinks["prod"].edit("authIMSTAClientSecret", "of somebody else")
		time.Sleep(time.Minute)
		w.must(w.daemon.Adopt(t.Context(), nil))
		w.wantProof(credsync.StateInSync, "", false)
		w.stop()
		w.start()
		w.wantProof(credsync.StateInSync, "", false)
	})
}

// An older release keeps what Adobe said, as it keeps every field that it does not know, and applies another credential: that one is not
// proven.
func TestAnswerAboutAnEarlierCredential(t *testing.T) {
	probing(t, nil, func(t *testing.T, w *world, a *adobe) {
		before := map[string]json.RawMessage{}
		w.must(json.Unmarshal([]byte(w.recordOnDisk("prod")), &before))
		a.change(func(a *adobe) { a.refuses["one"] = true })
		w.reload(func(c *credsync.Config) { c.Prober, c.Patience = nil, 0 })
		w.rotates("two", time.Minute)
		w.stop()
		after := map[string]json.RawMessage{}
		w.must(json.Unmarshal([]byte(w.recordOnDisk("prod")), &after))
		after["ims_applied_probe"] = before["ims_applied_probe"]
		text, _ := json.Marshal(after)
		w.must(os.WriteFile(filepath.Join(w.dir, "prod.json"), text, 0o600))
		w.config.Prober, w.config.Patience = a, time.Minute
		w.start()
		w.wantProof(credsync.StateInSync, "", false)
	})
}
