package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"campaign-credsync/test/container"
)

// The life of a secret in Vault, step by step: what is applied, recorded only, or kept.
func TestVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{})
	path := w.SecretPath("prod")
	_, current := w.rotate("prod")
	w.start()
	w.inSync(1)
	w.onDisk("prod", current)
	sets, reloads := 1, 1
	var data map[string]any // of the newest version

	rotate := func(t *testing.T, version int) {
		_, current = w.rotate("prod")
		data = container.Credential(current)
		w.pass()
		w.inSync(version)
		sets++
		reloads++
	}
	record := func(version int) {
		w.write("prod", data)
		w.pass()
		w.inSync(version)
	}
	blocked := func(t *testing.T, reason ...string) {
		t.Helper()
		w.pass()
		w.is("prod", "blocked", append(reason, path)...)
		// What is kept is also guarded.
		w.blank("prod")
		w.onDisk("prod", current)
		w.is("prod", "blocked")
		reloads = w.runs("end", "reload") // drift that may have been loaded is activated
	}
	for _, step := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"rotation", func(t *testing.T) { rotate(t, 2) }},
		{"same credential under a new version", func(t *testing.T) { record(3) }},
		{"soft delete", func(t *testing.T) {
			w.Vault.MustDelete(path, 3)
			blocked(t, "deleted", "undelete it or write a new version", "version 3")
		}},
		{"undelete", func(t *testing.T) { w.Vault.MustUndelete(path, 3); w.pass(); w.inSync(3) }},
		{"destroy", func(t *testing.T) {
			w.Vault.MustDestroy(path, 3)
			blocked(t, "destroyed", "write a new version")
		}},
		{"a new version after it", func(t *testing.T) { rotate(t, 4) }},
		{"delete with all metadata", func(t *testing.T) {
			w.Vault.MustDeleteAll(path)
			blocked(t, "no secret", "write it there, or correct mount and path")
		}},
		{"written anew with another credential: version 1 again", func(t *testing.T) { rotate(t, 1) }},
		{"deleted and written anew within one poll, same credential", func(t *testing.T) {
			record(2)
			w.Vault.MustDeleteAll(path)
			record(1)
		}},
		{"deleted and written anew within one poll, another credential", func(t *testing.T) {
			w.Vault.MustDeleteAll(path)
			_, current = w.rotate("prod")
			w.onDisk("prod", current)
			w.inSync(1)
			sets++
			reloads++
		}},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			w.in(t)
			step.do(t)
			w.pass()
			w.holds("prod", current)
			w.ran(sets, "end", "set")
			w.ran(reloads, "end", "reload")
		})
		w.in(t)
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
			w, first := started(t, container.Options{
				Extra: map[string]string{"prod": fmt.Sprintf("allow_rollback: %v", allowed)},
			})
			stale := w.metadata("prod")
			_, second := w.rotate("prod")
			w.inSync(2)
			w.Proxy.AnswerBody("/metadata/", http.StatusOK, stale)
			if allowed {
				w.inSync(1)
				w.holds("prod", first["prod"])
				w.ran(3, "end", "set")
				return
			}
			w.is("prod", "blocked", "version 1", "version 2", "allow_rollback")
			_, _, status := w.command("sync")
			if status != 1 {
				t.Errorf("sync ended with %d", status)
			}
			w.holds("prod", second)
			w.ran(2, "end", "set")

			w.Proxy.Forward()
			w.inSync(2)
			w.ran(2, "end", "set")

			w.Proxy.AnswerBody("/metadata/", http.StatusOK, stale)
			w.is("prod", "blocked")
			w.reconfigure(func(o *container.Options) { o.Extra = map[string]string{"prod": "allow_rollback: true"} })
			w.hangUp()
			w.inSync(1)
			w.holds("prod", first["prod"])
		})
	}
}

// A standby that is behind a secret's deletion and rewriting shows the old one, whose number may be higher or the same:
// what counts is that it is older.
func TestStaleStandbyAfterRewriting(t *testing.T) {
	t.Parallel()
	for _, versions := range []int{1} { // of the old secret; the new one has one
		t.Run(fmt.Sprintf("old version %d", versions), func(t *testing.T) {
			t.Parallel()
			w, _ := started(t, container.Options{})
			for range versions - 1 {
				w.rotate("prod")
			}
			w.pass()
			w.inSync(versions)
			metadata, data := w.metadata("prod"), w.data("prod")
			w.Vault.MustDeleteAll(w.SecretPath("prod"))
			_, secret := w.rotate("prod")
			w.pass()
			w.inSync(1)
			w.holds("prod", secret)
			sets := w.runs("end", "set")
			w.Proxy.AnswerBody("/metadata/", http.StatusOK, metadata)
			w.Proxy.AnswerBody("/data/", http.StatusOK, data)
			w.pass()
			w.is("prod", "blocked", "allow_rollback")
			w.holds("prod", secret)
			w.ran(sets, "end", "set")
		})
	}
}

// metadata is what Vault answers now about an instance's secret.
func (w *world) metadata(instance string) string { return w.answer("/metadata/", instance) }

// data is the same of the secret itself.
func (w *world) data(instance string) string { return w.answer("/data/", instance) }

func (w *world) answer(kind, instance string) string {
	w.t.Helper()
	var answer json.RawMessage
	w.must(w.Vault.Call(w.ctx, http.MethodGet, w.Vault.Mount+kind+w.SecretPath(instance), nil, &answer))
	return string(answer)
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
	w, secrets := started(t, options)
	for _, s := range shapes {
		data := maps.Clone(container.Credential("p8e-" + strings.Repeat("x", 32)))
		if s.value == nil {
			delete(data, s.field)
		} else {
			data[s.field] = s.value
		}
		w.write(s.name, data)
	}
	w.await("all blocked", func(s container.Status) bool { return s.Is("blocked") })
	stdout, _, status := w.command("sync")
	if status != 1 {
		t.Errorf("sync ended with %d", status)
	}
	after := w.pass()
	for _, s := range shapes {
		in := one(after, s.name)
		says(t, in.LastError, append(s.says, "version 2", "field "+s.field, w.SecretPath(s.name))...)
		says(t, stdout, in.LastError)
		if in.WantedVersion != 2 || in.AppliedVersion != 1 {
			t.Errorf("%s: wanted %d, applied %d", s.name, in.WantedVersion, in.AppliedVersion)
		}
		w.holds(s.name, secrets[s.name])
		if n := strings.Count(w.log(), `level=ERROR msg="secret refused, keeping what is applied" instance=`+s.name+" "); n != 1 {
			t.Errorf("%s: told %d times", s.name, n)
		}
	}
	w.ran(len(shapes), "end", "set")
	w.Proxy.Requests()
	w.pass()
	for _, r := range w.Proxy.Requests() {
		if r.DataRead() {
			t.Errorf("a refused version is read again: %s", r.Path)
		}
	}
	for _, s := range shapes {
		_, secrets[s.name] = w.rotate(s.name)
	}
	w.inSync(3)
	for _, s := range shapes {
		w.holds(s.name, secrets[s.name])
	}
}
