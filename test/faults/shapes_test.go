package faults_test

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// A credential that is written in steps: while any field is missing nothing of it is applied, neither alone nor mixed with what was
// there; the step that completes it is.
func TestSecretWrittenInSteps(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	whole := container.Credential("p8e-" + strings.Repeat("whole", 7)[:32])
	whole["client_id"] = strings.Repeat("f", 32)
	document := w.Read("prod")
	half := map[string]any{}
	for i, step := range []struct{ write, missing string }{
		{"ims_org_id", "client_id"},
		{"client_id", "technical_account_id"},
		{"technical_account_id", "client_secret"},
		{"client_secret", ""},
	} {
		half[step.write] = whole[step.write]
		w.WriteSecret("prod", maps.Clone(half))
		if step.missing == "" {
			break
		}
		w.Pass()
		w.Is("prod", "blocked/secret_malformed", "field "+step.missing+" is missing", fmt.Sprintf("version %d", i+2), w.SecretPath("prod"), "add it")
		if got := w.Read("prod"); !bytes.Equal(got, document) {
			t.Errorf("after %s the file has changed: %s", step.write, world.FirstDifference(document, got))
		}
		keepsAndGuards(w, secrets["prod"])
	}
	w.InSync(5)
	w.OnDisk("prod", whole["client_secret"].(string))
}

// Fields that no credential has are refused, each with its name, its place and a remedy, and what they hold shows nowhere.
func TestOddFields(t *testing.T) {
	t.Parallel()
	canary := "p8e-canary-" + strings.Repeat("Q", 20)
	deep := any(canary)
	for range 100 {
		deep = map[string]any{"d": deep}
	}
	type odd struct {
		field string
		value any
		says  string
	}
	odds := []odd{
		{"client_secret", canary + "\x00", "control character"},
		{"client_secret", canary + "💥", "ASCII"},
		{"client_secret", " " + canary, "space"},
		{"client_secret", canary + " ", "space"},
		{"client_secret", canary + "\n", "ends in a newline"},
		{"client_secret", canary + "\r\n", "control character"},
		{"client_secret", canary + "/" + canary, `"/"`},
		{"client_secret", canary + "\u2028", "ASCII"},
		{"client_secret", canary + "\x7f", "control character"},
		{"client_secret", canary + strings.Repeat("x", 900<<10), "longer than"},
		{"client_secret", true, "not a string"},
		{"client_secret", map[string]any{"value": canary}, "not a string"},
		{"client_secret", deep, "not a string"},
		{"client_id", "\t" + canary, "control character"},
		{"technical_account_id", "-instance:other " + canary, "space"},
		{"ims_org_id", nil, "missing"},
		{"client_secret", "ENC[AES256_GCM,data:" + canary + ",type:str]", "a placeholder"},
		{"client_secret", "${CLIENT_SECRET}", "a placeholder"},
		{"client_id", "{{ client_id }}", "a placeholder"},
		{"client_secret", "[REDACTED]", "a placeholder"},
		{"client_secret", "ChangeMe", "a placeholder"},
		{"private_key", 7, "not a string"},
		{"private_key", "-----BEGIN\x00" + canary, "character"},
	}
	w, secrets := world.Started(t, container.Options{})
	w.Secrets = append(w.Secrets, canary)
	version := 1
	for _, o := range odds {
		ok := t.Run(fmt.Sprintf("%s %s", o.field, o.says), func(t *testing.T) {
			w.In(t)
			data := container.Credential("p8e-" + strings.Repeat("y", 32))
			data[o.field] = o.value
			if o.value == nil {
				delete(data, o.field)
			}
			w.WriteSecret("prod", data)
			version++
			w.Pass()
			w.Is("prod", "blocked/secret_malformed", "field "+o.field, o.says, fmt.Sprintf("version %d", version), w.SecretPath("prod"))
			w.Holds("prod", secrets["prod"])
		})
		w.In(t)
		if !ok {
			return
		}
	}
	keepsAndGuards(w, secrets["prod"])
	w.Ran(1, "end", "set")
	version, secret := w.NewSecret("prod")
	w.InSync(version)
	w.Holds("prod", secret)
}

// A secret that is no credential at all: a huge one is not read again and again, other keys are nobody's business.
func TestHugeSecret(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	canary := "p8e-" + strings.Repeat("huge", 8)
	data := container.Credential(canary)
	data["backup"] = strings.Repeat("b", 1<<20)
	w.WriteSecret("prod", data)
	w.Is("prod", "blocked/secret_malformed", "version 2", "larger than 1024 KiB", "credential only", w.SecretPath("prod"))
	keepsAndGuards(w, secrets["prod"])
	w.Proxy.Requests()
	w.Pass()
	w.Pass()
	for _, r := range w.Proxy.Requests() {
		if r.DataRead() {
			t.Errorf("a refused version is read again: %s", r.Path)
		}
	}
	small := container.Credential("p8e-" + strings.Repeat("s", 32))
	small["backup"], small[""], small["💥\n"] = strings.Repeat("b", 500<<10), "x", []any{nil}
	w.WriteSecret("prod", small)
	w.InSync(3)
	w.Holds("prod", small["client_secret"].(string))
}
