package sync_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
	"campaign-credsync/sync/state"
)

// What is remembered of one file is not used for another: neither what was applied, nor what was refused because of that. The count of
// reverts is the instance's.
func TestRecordOfAnotherFile(t *testing.T) {
	for name, takesEffect := range map[string]func(w *world, change func(*credsync.Config)){
		"restart": func(w *world, change func(*credsync.Config)) { w.stop(); change(&w.config); w.start() },
		"reload":  (*world).reload,
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(w *world) {
				w.config.HoldFirst = true
				w.config.Instances[0].File = "/conf/a.xml"
			}, func(t *testing.T, w *world) {
				first, other := w.sinks["prod"], &sink{attributes: byHand()}
				first.edit("authIMSTAClientId", "mallory")
				w.wantOnDisk("prod", "one")
				w.source.change(func(s *source) {
					s.version = credential.Version{Number: 1, Created: s.version.Created.Add(-time.Hour)}
					s.secret = newCredential("another")
				})
				time.Sleep(40 * time.Second)
				w.wantState("prod", credsync.StateBlocked)

				w.sinks["prod"] = other
				takesEffect(w, func(c *credsync.Config) { c.Instances[0].File, c.Instances[0].Sink = "/conf/b.xml", other })
				time.Sleep(time.Second)
				w.isHeld()
				w.wantOnDisk("prod", "by-hand")
				if n := w.only().RevertedTotal; n != 1 {
					t.Errorf("%d reverts are counted", n)
				}
				if r := w.recordOnDisk("prod"); !strings.Contains(r, `"config_file": "/conf/b.xml"`) || strings.Contains(r, `"one"`) {
					t.Errorf("on record: %s", r)
				}
				other.edit("authIMSTAClientId", "mallory")
				w.wantOnDisk("prod", "by-hand")
				if first.get("authIMSTAClientId") != "one" {
					t.Error("the first file was written")
				}
				if n := w.told("config_file is another one than before"); n != 1 {
					t.Errorf("it is told %d times", n)
				}
			})
		})
	}
}

// The time before which Adobe does not want to be asked is of no file.
func TestAdobesTimeIsKeptForAnotherFile(t *testing.T) {
	one(t, func(w *world) { w.config.Instances[0].File = "/conf/a.xml" }, func(t *testing.T, w *world) {
		w.stop()
		store, err := state.Open(w.dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		record, err := store.Load("prod")
		record.ProbeNotBefore = time.Now().Add(time.Hour)
		if err := errors.Join(err, store.Save("prod", record), store.Close()); err != nil {
			t.Fatal(err)
		}
		w.config.Instances[0].File = "/conf/b.xml"
		w.start()
		w.settle()
		if r := w.recordOnDisk("prod"); !strings.Contains(r, `"ims_not_before"`) || !strings.Contains(r, "/conf/b.xml") {
			t.Errorf("on record: %s", r)
		}
	})
}

// A record from before files were named is of the configured one, and says so from the first start on, whether anything happens or not.
func TestRecordThatNamesNoFile(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.stop()
		w.config.Instances[0].File = "/conf/a.xml"
		w.start()
		w.wantState("prod", credsync.StateInSync)
		if r := w.recordOnDisk("prod"); !strings.Contains(r, `"config_file": "/conf/a.xml"`) {
			t.Errorf("on record: %s", r)
		}
		w.wantOnDisk("prod", "one")
		w.wantActivated()
	})
}
