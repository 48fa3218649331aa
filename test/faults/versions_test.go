package faults_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// The life of a secret in Vault, step by step: what is applied, recorded only, or kept.
func TestVersions(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	path := w.SecretPath("prod")
	_, current := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.OnDisk("prod", current)
	sets, reloads := 1, 1
	var data map[string]any // of the newest version

	rotate := func(t *testing.T, version int) {
		_, current = w.NewSecret("prod")
		data = container.Credential(current)
		w.Pass()
		w.InSync(version)
		sets++
		reloads++
	}
	record := func(version int) {
		w.WriteSecret("prod", data)
		w.Pass()
		w.InSync(version)
	}
	blocked := func(t *testing.T, reason string, says ...string) {
		t.Helper()
		w.Pass()
		w.Is("prod", "blocked/"+reason, append(says, path)...)
		// What is kept is also guarded.
		w.Blank("prod")
		w.OnDisk("prod", current)
		w.Pass()
		w.Is("prod", "blocked")
		reloads = w.CountRuns("end", "reload") // drift that may have been loaded is activated
	}
	for _, step := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"rotation", func(t *testing.T) { rotate(t, 2) }},
		{"same credential under a new version", func(t *testing.T) { record(3) }},
		{"soft delete", func(t *testing.T) {
			w.Vault.MustDelete(path, 3)
			blocked(t, "secret_deleted", "deleted", "undelete it or write a new version", "version 3")
		}},
		{"undelete", func(t *testing.T) { w.Vault.MustUndelete(path, 3); w.Pass(); w.InSync(3) }},
		{"destroy", func(t *testing.T) {
			w.Vault.MustDestroy(path, 3)
			blocked(t, "secret_deleted", "destroyed", "write a new version")
		}},
		{"a new version after it", func(t *testing.T) { rotate(t, 4) }},
		{"delete with all metadata", func(t *testing.T) {
			w.Vault.MustDeleteAll(path)
			blocked(t, "secret_missing", "no secret", "write it there, or correct mount and path")
		}},
		{"written anew with another credential: version 1 again", func(t *testing.T) { rotate(t, 1) }},
		{"deleted and written anew within one poll, same credential", func(t *testing.T) {
			record(2)
			w.Vault.MustDeleteAll(path)
			record(1)
		}},
		{"deleted and written anew within one poll, another credential", func(t *testing.T) {
			w.Vault.MustDeleteAll(path)
			_, current = w.NewSecret("prod")
			w.OnDisk("prod", current)
			w.InSync(1)
			sets++
			reloads++
		}},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			w.In(t)
			step.do(t)
			w.Pass()
			w.Holds("prod", current)
			w.Ran(sets, "end", "set")
			w.Ran(reloads, "end", "reload")
		})
		w.In(t)
		if !ok {
			return
		}
	}
}

// A version that goes back, as a stale standby or a rollback shows it.
func TestRollback(t *testing.T) {
	t.Parallel()
	for _, allowed := range []bool{false, true} {
		t.Run(fmt.Sprintf("allowed=%v", allowed), func(t *testing.T) {
			t.Parallel()
			w, first := world.Started(t, container.Options{
				Extra: map[string]string{"prod": fmt.Sprintf("allow_rollback: %v", allowed)},
			})
			stale := w.Metadata("prod")
			_, second := w.NewSecret("prod")
			w.InSync(2)
			w.Proxy.AnswerBody("/metadata/", http.StatusOK, stale)
			if allowed {
				w.InSync(1)
				w.Holds("prod", first["prod"])
				w.Ran(3, "end", "set")
				return
			}
			w.Is("prod", "blocked/secret_rollback", "version 1", "version 2", "allow_rollback")
			_, _, status := w.RunCommand("sync")
			if status != 1 {
				t.Errorf("sync ended with %d", status)
			}
			w.Holds("prod", second)
			w.Ran(2, "end", "set")

			w.Proxy.Forward()
			w.InSync(2)
			w.Ran(2, "end", "set")

			w.Proxy.AnswerBody("/metadata/", http.StatusOK, stale)
			w.Is("prod", "blocked/secret_rollback")
			w.Reconfigured(func(o *container.Options) { o.Extra = map[string]string{"prod": "allow_rollback: true"} })
			w.HangUp()
			w.InSync(1)
			w.Holds("prod", first["prod"])
		})
	}
}

// A standby that is behind a secret's deletion and rewriting shows the old one, whose number may be higher or the same:
// what counts is that it is older.
func TestStaleStandbyAfterRewriting(t *testing.T) {
	t.Parallel()
	for _, versions := range []int{1, 3} { // of the old secret; the new one has one
		t.Run(fmt.Sprintf("old version %d", versions), func(t *testing.T) {
			t.Parallel()
			w, _ := world.Started(t, container.Options{})
			for range versions - 1 {
				w.NewSecret("prod")
			}
			w.Pass()
			w.InSync(versions)
			metadata, data := w.Metadata("prod"), w.Data("prod")
			w.Vault.MustDeleteAll(w.SecretPath("prod"))
			_, secret := w.NewSecret("prod")
			w.Pass()
			w.InSync(1)
			w.Holds("prod", secret)
			sets := w.CountRuns("end", "set")
			w.Proxy.AnswerBody("/metadata/", http.StatusOK, metadata)
			w.Proxy.AnswerBody("/data/", http.StatusOK, data)
			w.Pass()
			w.Is("prod", "blocked/secret_rollback", "allow_rollback")
			w.Holds("prod", secret)
			w.Ran(sets, "end", "set")
		})
	}
}

// The record of an older release does not say when the secret was written anew: the first poll tells.
func TestStaleStandbyAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.NewSecret("prod")
	w.Pass()
	w.InSync(2)
	metadata, data := w.Metadata("prod"), w.Data("prod")
	w.Vault.MustDeleteAll(w.SecretPath("prod"))
	_, secret := w.NewSecret("prod")
	w.Pass()
	w.InSync(1)
	w.Stop()
	path := filepath.Join(w.StateDir(), "prod.json")
	record, err := os.ReadFile(path)
	w.Must(err)
	older := regexp.MustCompile(`,\s*"begun": "[^"]*"`).ReplaceAll(record, nil)
	if len(older) == len(record) {
		t.Fatalf("nothing to take out of %s", record)
	}
	w.Must(os.WriteFile(path, older, 0o600))
	w.StartDaemon()
	w.InSync(1)
	w.Pass()
	w.Proxy.AnswerBody("/metadata/", http.StatusOK, metadata)
	w.Proxy.AnswerBody("/data/", http.StatusOK, data)
	w.Is("prod", "blocked/secret_rollback")
	w.Holds("prod", secret)
}

// The metadata come from a node that knows of the rewriting, and the secret of that number from one that does not.
func TestStaleStandbyHasTheNumberToo(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{})
	w.NewSecret("prod")
	w.Pass()
	w.InSync(2)
	data := w.Data("prod")
	w.Vault.MustDeleteAll(w.SecretPath("prod"))
	_, secret := w.NewSecret("prod")
	w.Pass()
	w.InSync(1)
	sets := w.CountRuns("end", "set")
	w.Proxy.AnswerBody("/data/", http.StatusOK, data)
	version, next := w.NewSecret("prod")
	w.Is("prod", "degraded", "version 2", "is listed and cannot be read")
	w.Holds("prod", secret)
	w.Ran(sets, "end", "set")
	w.Proxy.Forward()
	w.InSync(version)
	w.Holds("prod", next)
	w.Ran(sets+1, "end", "set")
}

// A secret of the wrong shape is refused whole: nothing of it is applied, and the reason names field, path and remedy.
func TestWrongShapes(t *testing.T) {
	t.Parallel()
	type shape struct {
		name, field string
		value       any // nil: the field is missing
		says        []string
	}
	mend := "write a new version"
	shapes := []shape{
		{"slash", "client_secret", "p8e-abc/defghijklmnop", []string{`"/"`, mend}},
		{"slash-in-id", "client_id", "abc/def", []string{`"/"`, mend}},
		{"newline", "client_secret", "p8e-abcdefghijklmnop\n", []string{"newline", "printf", mend}},
		{"inner-newline", "client_secret", "p8e-abcd\nefghijklmnop", []string{"control character", mend}},
		{"space", "ims_org_id", "0123 4567@AdobeOrg", []string{"space", mend}},
		{"number", "client_secret", 12345678901234, []string{"not a string", "quotes"}},
		{"list", "client_secret", []string{"p8e-abcdefghijklmnop"}, []string{"not a string"}},
		{"empty", "technical_account_id", "", []string{"empty", mend}},
		{"missing", "client_secret", nil, []string{"missing", "fields.client_secret"}},
		{"umlaut", "client_secret", "p8e-äbcdefghijklmnop", []string{"ASCII", mend}},
		{"long", "client_secret", strings.Repeat("p8e-abcd", 40), []string{"longer than", mend}},
		{"option", "client_id", "", []string{"empty"}},
	}
	var options container.Options
	for _, s := range shapes {
		options.Instances = append(options.Instances, s.name)
	}
	w, secrets := world.Started(t, options)
	for _, s := range shapes {
		data := maps.Clone(container.Credential("p8e-" + strings.Repeat("x", 32)))
		if s.value == nil {
			delete(data, s.field)
		} else {
			data[s.field] = s.value
		}
		w.WriteSecret(s.name, data)
	}
	w.AwaitStatus("all blocked", func(s container.Status) bool { return s.Is("blocked") })
	stdout, _, status := w.RunCommand("sync")
	if status != 1 {
		t.Errorf("sync ended with %d", status)
	}
	after := w.Pass()
	for _, s := range shapes {
		in := world.One(after, s.name)
		world.Says(t, in.LastError, append(s.says, "version 2", "field "+s.field, w.SecretPath(s.name))...)
		world.Says(t, stdout, in.LastError)
		if in.WantedVersion != 2 || in.AppliedVersion != 1 {
			t.Errorf("%s: wanted %d, applied %d", s.name, in.WantedVersion, in.AppliedVersion)
		}
		w.Holds(s.name, secrets[s.name])
		if n := strings.Count(w.Log(), `level=ERROR msg="secret refused, keeping the applied credential" instance=`+s.name+" "); n != 1 {
			t.Errorf("%s: told %d times", s.name, n)
		}
	}
	w.Ran(len(shapes), "end", "set")
	w.Proxy.Requests()
	w.Pass()
	for _, r := range w.Proxy.Requests() {
		if r.DataRead() {
			t.Errorf("a refused version is read again: %s", r.Path)
		}
	}
	for _, s := range shapes {
		_, secrets[s.name] = w.NewSecret(s.name)
	}
	w.InSync(3)
	for _, s := range shapes {
		w.Holds(s.name, secrets[s.name])
	}
}
