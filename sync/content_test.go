package sync_test

import (
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// write puts a content into a source that has no versions, or only the number that its writer gave it (0: none).
func (s *source) write(number int, clientID, more string) {
	content := []byte(clientID + more)
	s.change(func(s *source) {
		s.version = credential.ContentVersion([]byte("key"), content)
		if number > 0 {
			s.version = credential.NumberedContent(number, []byte("key"), content)
		}
		s.secret = newCredential(clientID)
		s.err = nil
	})
}

// From a source without versions, or without times, to what is applied: the table of what becomes of each next content.
func TestContentsAndNumbers(t *testing.T) {
	type written struct {
		number     int
		id, more   string
		rollback   bool
		applied    string // client id on disk afterwards
		state      credsync.State
		runs       int // of nlserver, since the step before
		told, mute string
	}
	const unordered = 0
	for _, c := range []struct {
		name  string
		steps []written
	}{
		{"no versions", []written{
			{unordered, "one", "", false, "one", credsync.StateInSync, 1, "", ""},
			{unordered, "two", "", false, "two", credsync.StateInSync, 1, "", "goes back"},
			{unordered, "two", "another key", false, "two", credsync.StateInSync, 0, "recorded", "credential applied"},
			{unordered, "one", "", false, "one", credsync.StateInSync, 1, "credential applied", "goes back"},
		}},
		{"counted by its writer", []written{
			{1, "one", "", false, "one", credsync.StateInSync, 1, "", "goes back"},
			{3, "three", "", false, "three", credsync.StateInSync, 1, "", "goes back"},
			{2, "two", "", false, "three", credsync.StateBlocked, 0, "goes back from version 3", "credential applied"},
			{3, "three", "", false, "three", credsync.StateInSync, 0, "accepted again", "credential applied"},
			{3, "four", "", false, "four", credsync.StateInSync, 1, "credential applied", "goes back"},
			{3, "four", "another key", false, "four", credsync.StateInSync, 0, "recorded", "credential applied"},
			{2, "two", "", true, "two", credsync.StateInSync, 1, "credential applied", "goes back"},
		}},
		{"counted, and then not", []written{
			{5, "five", "", false, "five", credsync.StateInSync, 1, "", ""},
			{unordered, "none", "", false, "none", credsync.StateInSync, 1, "credential applied", "goes back"},
			{4, "four", "", false, "four", credsync.StateInSync, 1, "credential applied", "goes back"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			// From KV version 2, where version 1 was applied.
			one(t, nil, func(t *testing.T, w *world) {
				for i, s := range c.steps {
					if s.rollback {
						w.stop()
						w.config.Instances[0].AllowRollback = true
						w.start()
					}
					log, runs := len(w.log.String()), w.sinks["prod"].applied()
					w.source.write(s.number, s.id, s.more)
					time.Sleep(2 * time.Minute)
					w.wantOnDisk("prod", s.applied)
					w.wantState("prod", s.state)
					if got := w.sinks["prod"].applied() - runs; got != s.runs && i > 0 { // the first is what is applied already
						t.Errorf("step %d: %d runs, want %d", i, got, s.runs)
					}
					told := w.log.String()[log:]
					if !strings.Contains(told, s.told) || s.mute != "" && strings.Contains(told, s.mute) {
						t.Fatalf("step %d: told, with %q and without %q:\n%s", i, s.told, s.mute, told)
					}
					// And that is all, also over a restart.
					w.stop()
					w.start()
					reads, before := w.source.reads, w.sinks["prod"].applied()
					time.Sleep(10 * time.Minute)
					w.wantState("prod", s.state)
					if w.source.reads != reads || w.sinks["prod"].applied() != before {
						t.Errorf("step %d: %d reads and %d runs although nothing changed", i, w.source.reads-reads, w.sinks["prod"].applied()-before)
					}
				}
			})
		})
	}
}

// A content that is of no use is refused once, and looked at again only when it is another one.
func TestRefusedContentIsRemembered(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.source.write(0, "two", "")
		w.source.change(func(s *source) {
			s.refused = &credential.Refusal{Version: s.version, Reason: "field client_secret is empty"}
		})
		time.Sleep(2 * time.Minute)
		w.wantState("prod", credsync.StateBlocked)
		_, reads := w.source.counts()
		time.Sleep(time.Hour)
		w.wantState("prod", credsync.StateBlocked)
		if _, more := w.source.counts(); more != reads || w.told("level=ERROR") != 1 {
			t.Errorf("%d reads more, told %d times", more-reads, w.told("level=ERROR"))
		}
		w.source.write(0, "two", "mended")
		w.source.change(func(s *source) { s.refused = nil })
		time.Sleep(2 * time.Minute)
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "two")
	})
}

// Instances that share a secret and call its fields differently share its polls; one whose names are wrong does not hold up
// the other, and is served as soon as there is a content that has them.
func TestFieldsAreTheInstancesOwn(t *testing.T) {
	inWorld(t, []string{"prod", "test"}, func(w *world) {
		w.config.Instances[1].Fields = credential.Fields{credential.FieldClientID: "other"}
		w.source.change(func(s *source) { s.others = map[string]string{"other": "one's other"} })
	}, func(t *testing.T, w *world) {
		w.wantOnDisk("prod", "one")
		w.wantOnDisk("test", "one's other")
		polls, reads := w.source.counts()
		if polls != 1 || reads != 1 {
			t.Errorf("%d polls and %d reads for two instances", polls, reads)
		}
		w.source.rotate("two")
		w.source.change(func(s *source) { s.others = nil })
		time.Sleep(2 * time.Minute)
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "two")
		w.wantState("test", credsync.StateBlocked)
		w.wantOnDisk("test", "one's other")
		_, reads = w.source.counts()
		time.Sleep(time.Hour)
		if _, more := w.source.counts(); more != reads || w.told("level=ERROR") != 1 {
			t.Errorf("%d reads more, told %d times", more-reads, w.told("level=ERROR"))
		}
		w.source.rotate("three")
		w.source.change(func(s *source) { s.others = map[string]string{"other": "three's other"} })
		time.Sleep(2 * time.Minute)
		w.wantState("test", credsync.StateInSync)
		w.wantOnDisk("prod", "three")
		w.wantOnDisk("test", "three's other")
	})
}

// A reload that corrects an instance's fields has what was refused for them looked at anew.
func TestReloadWithOtherFields(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		w.reload(func(c *credsync.Config) { c.Instances[0].Fields = credential.Fields{credential.FieldClientID: "other"} })
		w.source.rotate("two")
		time.Sleep(2 * time.Minute)
		w.wantState("prod", credsync.StateBlocked)
		w.source.change(func(s *source) { s.others = map[string]string{"other": "two's other", "third": "two's third"} })
		time.Sleep(2 * time.Minute)
		w.wantState("prod", credsync.StateBlocked) // nobody looks at a version again that was refused
		w.reload(func(c *credsync.Config) { c.Instances[0].Fields = credential.Fields{credential.FieldClientID: "third"} })
		w.wantState("prod", credsync.StateInSync)
		w.wantOnDisk("prod", "two's third")
	})
}

// Under other names the version that is applied holds another credential: it is applied, also when the names changed while no daemon
// ran; and is not where it is the same under both.
func TestOtherFieldsOfTheSameVersion(t *testing.T) {
	named := func(key string) credential.Fields { return credential.Fields{credential.FieldClientID: key} }
	inWorld(t, []string{"prod"}, func(w *world) {
		w.config.Instances[0].Fields = named("first")
		w.source.change(func(s *source) {
			s.others = map[string]string{"first": "one", "same": "one", "second": "two", "third": "three"}
		})
	}, func(t *testing.T, w *world) {
		w.wantOnDisk("prod", "one")
		w.reload(func(c *credsync.Config) { c.Instances[0].Fields = named("same") })
		w.wantState("prod", credsync.StateInSync)
		_, reads := w.source.counts()
		time.Sleep(time.Hour)
		if _, now := w.source.counts(); now != reads {
			t.Errorf("the secret is read again and again: %d times in an hour", now-reads)
		}
		if n := w.sinks["prod"].applied(); n != 1 {
			t.Errorf("applied %d times", n)
		}
		w.reload(func(c *credsync.Config) { c.Instances[0].Fields = named("second") })
		w.wantOnDisk("prod", "two")
		w.stop()
		w.config.Instances[0].Fields = named("third")
		w.start()
		w.wantOnDisk("prod", "three")
		w.wantState("prod", credsync.StateInSync)
	})
}

// A shape that is not the usual one is worth one line for each version.
func TestUnusualShapeIsToldOnceForEachVersion(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		time.Sleep(time.Hour)
		if n := w.told("unusual"); n != 1 {
			t.Errorf("told %d times, want once\n%s", n, w.log)
		}
		w.source.rotate("two")
		time.Sleep(time.Hour)
		if n := w.told("unusual"); n != 2 {
			t.Errorf("told %d times after another version, want twice\n%s", n, w.log)
		}
	})
}
