package vault_test

import (
	"campaign-credsync/test/vaulttest/vaultlab"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/vaulttest"
)

// The policy in the documentation is exactly this one.
func TestLeastPolicyIsEnough(t *testing.T) {
	l := newLabWith(t, func(s *vaulttest.Server, path string) string {
		return fmt.Sprintf(`path "%s/data/%s" { capabilities = ["read"] } path "%s/metadata/%s" { capabilities = ["read"] }`,
			s.Mount, path, s.Mount, path)
	}, time.Hour)
	l.Server.MustWrite(path, oauth())
	reading := l.MustPoll(l.KV(l.Vault()), always)
	if reading.Version.Number != 1 || reading.Version.Created.IsZero() || reading.Credential == nil {
		t.Fatalf("read %+v", reading)
	}
	want := credential.Credential{
		OrgID: "0123456789ABCDEF01234567@AdobeOrg", ClientID: "0123456789abcdef0123456789abcdef",
		TechnicalAccountID: "0123456789ABCDEF@techacct.adobe.com", ClientSecret: credential.NewSecret(secretCanary),
	}
	if key, got := []byte("k"), l.Picked(reading); got.Digest(key) != want.Digest(key) {
		t.Errorf("another credential than the one written: %v", got)
	}
	if logged := l.Log.String(); strings.Contains(logged, "WARN") {
		t.Errorf("the usual case warns: %s", logged)
	}
}

func TestSteadyPollIsOneRequestAndReadsNoSecret(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	kv := l.KV(l.Vault())
	first := l.MustPoll(kv, always)
	l.Proxy.Requests()
	for range 3 {
		reading := l.MustPoll(kv, never)
		if reading.Credential != nil || !reading.Version.Equal(first.Version) {
			t.Errorf("read %+v, want version %v without a credential", reading, first.Version)
		}
		if requests := l.Proxy.Requests(); len(requests) != 1 || requests[0].DataRead() {
			t.Errorf("a steady poll makes %+v", requests)
		}
	}
}

func TestRotation(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	kv := l.KV(l.Vault())
	applied := l.MustPoll(kv, always).Version
	need := func(v credential.Version) bool { return !v.Equal(applied) }
	l.Server.MustWrite(path, oauth("client_secret", "p8e-SecondSecondSecondSecondSecond123"))
	reading := l.MustPoll(kv, need)
	if reading.Version.Number != 2 || reading.Credential == nil ||
		l.Picked(reading).ClientSecret.Reveal() != "p8e-SecondSecondSecondSecondSecond123" {
		t.Errorf("after a rotation: %+v", reading)
	}
	if !reading.Version.Created.After(applied.Created) {
		t.Errorf("version 2 was created at %v, version 1 at %v", reading.Version.Created, applied.Created)
	}
}

func TestPolicyWithoutMetadata(t *testing.T) {
	dataOnly := func(s *vaulttest.Server, path string) string {
		return fmt.Sprintf(`path "%s/data/%s" { capabilities = ["read"] }`, s.Mount, path)
	}
	l := newLabWith(t, dataOnly, time.Hour)
	l.Server.MustWrite(path, oauth())
	kv := l.KV(l.Vault())
	if reading := l.MustPoll(kv, always); reading.Credential == nil || reading.Version.Number != 1 {
		t.Fatalf("read %+v", reading)
	}
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins, want 1: the policy is no reason for another", logins)
	}
	for range 2 {
		if reading := l.MustPoll(kv, never); reading.Credential != nil || reading.Version.Number != 1 {
			t.Errorf("not needed, read %+v", reading)
		}
		if requests := l.Proxy.Requests(); len(requests) != 1 {
			t.Errorf("a steady poll makes %+v", requests)
		}
	}
	l.Server.MustDelete(path, 1)
	l.MustRefuse(kv, 1, "deleted", "undelete")
}

func TestPolicyThatForbidsAllIsNoReasonToLogInAgain(t *testing.T) {
	l := newLabWith(t, func(*vaulttest.Server, string) string { return `path "other/*" { capabilities = ["read"] }` }, time.Hour)
	l.Server.MustWrite(path, oauth())
	kv := l.KV(l.Vault())
	for range 5 {
		l.MustFail(kv, "permission denied", "policy", l.Server.Mount+"/data/"+path, l.Server.Mount+"/metadata/"+path)
	}
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins for 5 polls, want 1", logins)
	}
}

func TestShapesThatAreRefused(t *testing.T) {
	l := newLab(t)
	v := l.Vault()
	for _, test := range []struct {
		name   string
		data   map[string]any
		fields credential.Fields
		words  []string
	}{
		{"missing", oauth("client_id", nil), nil, []string{"client_id", "missing"}},
		{"null", map[string]any{"client_id": nil}, nil, []string{"ims_org_id", "missing"}},
		{"empty object", map[string]any{}, nil, []string{"missing"}},
		{"number", oauth("client_secret", 12345678901234), nil, []string{"client_secret", "not a string"}},
		{"object", oauth("client_secret", map[string]any{"value": secretCanary}), nil, []string{"client_secret", "not a string"}},
		{"list", oauth("client_secret", []any{secretCanary}), nil, []string{"client_secret", "not a string"}},
		{"boolean", oauth("private_key", true), nil, []string{"private_key", "not a string"}},
		{"empty", oauth("client_secret", ""), nil, []string{"client_secret", "empty"}},
		{"newline", oauth("client_secret", secretCanary+"\n"), nil, []string{"client_secret", "newline"}},
		{"slash", oauth("client_id", "a/b"), nil, []string{"client_id", `"/"`}},
		{"umlaut", oauth("client_secret", secretCanary+"ü"), nil, []string{"client_secret", "ASCII"}},
		{"other key", oauth(), credential.Fields{credential.FieldClientSecret: "secret"}, []string{"client_secret", `"secret"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			version := l.Server.MustWrite(path, test.data)
			_, err := vaultlab.PollWith(t.Context(), v.KV(l.Server.Mount, path, 2), test.fields)
			if err == nil {
				t.Fatal("not refused")
			}
			l.FailsWith(err, append(test.words, path)...)
			l.IsRefusal(err, version)
		})
	}
}

func TestFieldsFromOtherKeys(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, map[string]any{
		"org": "0123456789ABCDEF01234567@AdobeOrg", "id": "0123456789abcdef0123456789abcdef",
		"technical_account_id": "0123456789ABCDEF@techacct.adobe.com", "secret": secretCanary, "private_key": nil, "note": 7,
	})
	reading := l.MustPoll(l.Vault().KV("/"+l.Server.Mount+"/", "/"+path, 2), always)
	c, refusal := reading.Credential(credential.Fields{
		credential.FieldOrgID: "org", credential.FieldClientID: "id", credential.FieldClientSecret: "secret",
	})
	if refusal != nil || c.ClientSecret.Reveal() != secretCanary {
		t.Errorf("the secret was not found under its key: %v", refusal)
	}
}

func TestDeletedAndBack(t *testing.T) {
	l := newLab(t)
	v := l.Vault()
	kv := l.KV(v)
	l.MustRefuse(kv, 0, "no secret", path)
	l.Server.MustWrite(path, oauth())
	first := l.MustPoll(kv, always).Version

	l.Server.MustDelete(path, 1)
	l.Proxy.Requests()
	l.MustRefuse(kv, 1, "deleted", "undelete")
	if n := vaulttest.Count(l.Proxy.Requests(), vaulttest.Request.DataRead); n != 0 {
		t.Errorf("%d reads of a deleted secret", n)
	}
	l.Server.MustUndelete(path, 1)
	// Its asker may remember version 1 as refused: it is handed over although it is not asked for.
	if reading := l.MustPoll(kv, never); !reading.Version.Equal(first) || reading.Credential == nil {
		t.Errorf("undeleted, read %+v", reading)
	}
	if reading := l.MustPoll(kv, never); reading.Credential != nil {
		t.Error("undeleted, read a second time without need")
	}

	l.Server.MustDestroy(path, 1)
	l.MustRefuse(kv, 1, "destroyed")

	l.Server.MustDeleteAll(path)
	l.MustRefuse(kv, 0, "no secret")
	l.Server.MustWrite(path, oauth())
	anew := l.MustPoll(kv, always).Version
	if anew.Number != 1 || anew.Equal(first) || anew.GoesBackFrom(first) {
		t.Errorf("written anew, version %+v after %+v", anew, first)
	}
}

func TestMetadataWithoutVersion(t *testing.T) {
	l := newLab(t)
	l.mustCall(http.MethodPost, l.Server.Mount+"/metadata/"+path, map[string]any{"max_versions": 3})
	l.MustRefuse(l.KV(l.Vault()), 0, "no version")
}

func (l *lab) mustCall(method, path string, body any) {
	l.T.Helper()
	if err := l.Server.Call(l.T.Context(), method, path, body, nil); err != nil {
		l.T.Fatal(err)
	}
}

// delete_version_after writes a deletion_time that lies ahead.
func TestDeletionAheadIsNoDeletion(t *testing.T) {
	l := newLab(t)
	l.mustCall(http.MethodPost, l.Server.Mount+"/metadata/"+path, map[string]any{"delete_version_after": "1h"})
	l.Server.MustWrite(path, oauth())
	if reading := l.MustPoll(l.KV(l.Vault()), always); reading.Credential == nil {
		t.Error("no credential")
	}
}

func TestPathIsNotJoinedToAnother(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	for _, odd := range []string{"../other", "a//b", "", "a/./b"} {
		if _, err := v.KV(l.Server.Mount, odd, 2).Poll(t.Context(), always); err == nil {
			t.Errorf("path %q is taken", odd)
		}
	}
}

// With a token that may read everything Vault says what is there; the error names the commonest mistake.
func TestDataInThePath(t *testing.T) {
	l := newLab(t)
	l.UseTokenFile(l.Server.Token)
	l.Server.MustWrite(path, oauth())
	l.MustRefuse(l.Vault().KV(l.Server.Mount, "data/"+path, 2), 0, `without "data/"`)
}
