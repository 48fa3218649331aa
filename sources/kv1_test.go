package sources_test

import (
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vaulttest"
)

const deepPath = "very/deep/campaign/prod/oauth"

// newEngineLab is a lab with a mount whose name has slashes, and a role that may read deepPath there and nothing else.
func newEngineLab(t *testing.T, version int) (l *lab, mount string) {
	t.Helper()
	l = newLab(t)
	mount = l.server.MustMountKV("team/a", version)
	l.server.MustSetPolicy(l.roleID, leastPolicy(mount, version))
	return l, mount
}

func leastPolicy(mount string, version int) string {
	if version == 1 {
		return vaulttest.ReadPolicyAt(mount + "/" + deepPath)
	}
	return vaulttest.ReadPolicyAt(mount+"/data/"+deepPath, mount+"/metadata/"+deepPath)
}

// A version 1 mount has no versions: the content is the version, whoever wrote it and in whatever order.
func TestKV1(t *testing.T) {
	l, mount := newEngineLab(t, 1)
	at := mount + "/" + deepPath
	kv := l.vault().KV1(mount, deepPath)
	l.mustRefuse(kv, 0, "no secret", at, "kv_version")

	l.server.MustWriteAt(at, oauth("note", 1.50))
	first := l.mustPoll(kv, always)
	if got := l.picked(first); got.ClientSecret.Reveal() != secretCanary || !first.Version.Unordered || !first.Version.Created.IsZero() {
		t.Fatalf("read %v, version %+v", got, first.Version)
	}
	// A steady poll is one request, which cannot be lighter than the secret itself; what is not needed is not kept.
	l.proxy.Requests()
	for range 3 {
		reading := l.mustPoll(kv, never)
		if reading.Credential != nil || !reading.Version.Equal(first.Version) {
			t.Errorf("read %+v, want version %v without a credential", reading, first.Version)
		}
		if requests := l.proxy.Requests(); len(requests) != 1 || requests[0].Path != "/v1/"+at {
			t.Errorf("a steady poll makes %+v", requests)
		}
	}
	// Another daemon with the same key sees the same version.
	if again := l.mustPoll(l.vault().KV1(mount, deepPath), always).Version; !again.Equal(first.Version) {
		t.Errorf("version %+v, then %+v", first.Version, again)
	}
	l.config.DigestKey = []byte("another key")
	if other := l.mustPoll(l.vault().KV1(mount, deepPath), always).Version; other.Equal(first.Version) {
		t.Error("the version tells the content to who does not have the key")
	}
	// Another key of the secret changes the version, not the credential; a rotation both; and there is no way back or forth.
	l.server.MustWriteAt(at, oauth("note", 2))
	second := l.mustPoll(kv, always)
	key := []byte("k")
	one, two := l.picked(first), l.picked(second)
	if second.Version.Equal(first.Version) || one.Digest(key) != two.Digest(key) {
		t.Errorf("another note: version %v after %v", second.Version, first.Version)
	}
	l.server.MustWriteAt(at, oauth("client_secret", "p8e-SecondSecondSecondSecondSecond123"))
	third := l.mustPoll(kv, always)
	if third.Version.Equal(second.Version) || l.picked(third).ClientSecret.Reveal() != "p8e-SecondSecondSecondSecondSecond123" {
		t.Errorf("after a rotation: version %v", third.Version)
	}
	l.server.MustWriteAt(at, oauth("note", 1.50))
	if back := l.mustPoll(kv, always).Version; !back.Equal(first.Version) || back.GoesBackFrom(third.Version) || third.Version.GoesBackFrom(back) {
		t.Errorf("the first content again has version %+v", back)
	}

	l.server.MustDeleteAt(at)
	l.mustRefuse(kv, 0, "no secret", at)
	l.server.MustWriteAt(at, oauth("client_secret", 7))
	reading := l.mustPoll(kv, always)
	_, refusal := reading.Credential(nil)
	if refusal == nil || !refusal.Version.Equal(reading.Version) {
		t.Fatalf("refused: %+v, version %+v", refusal, reading.Version)
	}
	l.failsWith(refusal, "client_secret", "not a string", at)
	l.server.MustWriteAt(at, map[string]any{"filler": strings.Repeat("x", 1<<20)})
	l.mustRefuse(kv, 0, "larger than 1024 KiB", at)
	l.server.MustWriteAt(at, oauth("note", 1.50))
	if back := l.mustPoll(kv, always).Version; !back.Equal(first.Version) {
		t.Errorf("written again, version %+v", back)
	}
	if logged := l.log.String(); strings.Contains(logged, "WARN") {
		t.Errorf("the usual case warns: %s", logged)
	}
}

// Both engines below a mount with slashes, each with the least policy. Without it they are forbidden, and the error names
// what is missing.
func TestDeepMounts(t *testing.T) {
	for _, version := range []int{1, 2} {
		l, mount := newEngineLab(t, version)
		v := l.vault()
		kv, at := v.KV(mount, deepPath), mount+"/data/"+deepPath
		data := map[string]any{"data": oauth()}
		if version == 1 {
			kv, at, data = v.KV1(mount, deepPath), mount+"/"+deepPath, oauth()
		}
		l.server.MustWriteAt(at, data)
		if got := l.picked(l.mustPoll(kv, always)); got.ClientSecret.Reveal() != secretCanary {
			t.Errorf("KV version %d: read %v", version, got)
		}
		l.server.MustSetPolicy(l.roleID, vaulttest.ReadPolicyAt("other"))
		l.eventually(func() bool { // the least time between two logins is over
			_, err := kv.Poll(t.Context(), always)
			return err != nil && !strings.Contains(err.Error(), "next login")
		})
		l.mustFail(kv, "permission denied", "policy", at)
	}
}

// Who mixes the versions of the engine up is told which it is, where Vault tells.
func TestKVVersionsMixedUp(t *testing.T) {
	l := newLab(t)
	l.useTokenFile(l.server.Token)
	one, two := l.server.MustMountKV("one", 1), l.server.MustMountKV("two", 2)
	l.server.MustWriteAt(one+"/"+path, oauth())
	l.server.MustWriteAt(two+"/data/"+path, map[string]any{"data": oauth()})
	v := l.vault()
	l.mustRefuse(v.KV1(two, path), 0, "kv_version: 2", two+"/"+path)
	l.mustRefuse(v.KV1(two, "data/"+path), 0, "kv_version: 2", `leave out the "data/"`)
	l.mustRefuse(v.KV(one, path), 0, "no secret at "+one+"/"+path, "kv_version: 1")
	// What only looks like a version 2 secret is one of version 1.
	l.server.MustWriteAt(one+"/"+path, map[string]any{"data": map[string]any{"a": "b"}, "metadata": map[string]any{"version": "new"}})
	if _, err := pollWith(t.Context(), v.KV1(one, path), nil); err == nil || !strings.Contains(err.Error(), "ims_org_id is missing") {
		t.Errorf("refused with %v", err)
	}
}

// Without a right to read, the error names what the engine needs.
func TestKV1Forbidden(t *testing.T) {
	l, mount := newEngineLab(t, 1)
	l.server.MustSetPolicy(l.roleID, vaulttest.ReadPolicyAt("other"))
	err := l.mustFail(l.vault().KV1(mount, deepPath), "permission denied", mount+"/"+deepPath)
	if strings.Contains(err.Error(), "/data/") || strings.Contains(err.Error(), "/metadata/") {
		t.Errorf("it names paths of version 2: %v", err)
	}
}

// One request serves instances that call the fields differently.
func TestFieldsOverOneReading(t *testing.T) {
	l, mount := newEngineLab(t, 1)
	data := oauth("secret", "p8e-OtherOtherOtherOtherOtherOther1234")
	l.server.MustWriteAt(mount+"/"+deepPath, data)
	reading := l.mustPoll(l.vault().KV1(mount, deepPath), always)
	l.proxy.Requests()
	for key, want := range map[string]string{"client_secret": secretCanary, "secret": "p8e-OtherOtherOtherOtherOtherOther1234"} {
		c, refusal := reading.Credential(credential.Fields{credential.FieldClientSecret: key})
		if refusal != nil || c.ClientSecret.Reveal() != want {
			t.Errorf("key %s: %v, %v", key, c, refusal)
		}
	}
	if _, refusal := reading.Credential(credential.Fields{credential.FieldClientSecret: "third"}); refusal == nil || !refusal.Version.Equal(reading.Version) {
		t.Errorf("a key that is not there: %v", refusal)
	}
	if n := len(l.proxy.Requests()); n != 0 {
		t.Errorf("%d requests for the fields", n)
	}
}
