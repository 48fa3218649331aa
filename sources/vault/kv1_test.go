package vault_test

import (
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/vaulttest"
)

const deepPath = "very/deep/campaign/prod/oauth"

// newEngineLab is a lab with a mount whose name has slashes, and a role that may read deepPath there and nothing else.
func newEngineLab(t *testing.T, version int) (l *lab, mount string) {
	t.Helper()
	l = newLab(t)
	mount = l.Server.MustMountKV("team/a", version)
	l.Server.MustSetPolicy(l.RoleID, leastPolicy(mount, version))
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
	kv := l.Vault().KV(mount, deepPath, 1)
	l.MustRefuse(kv, 0, "no secret", at, "kv_version")

	l.Server.MustWriteAt(at, oauth("note", 1.50))
	first := l.MustPoll(kv, always)
	if got := l.Picked(first); got.ClientSecret.Reveal() != secretCanary || !first.Version.Unordered || !first.Version.Created.IsZero() {
		t.Fatalf("read %v, version %+v", got, first.Version)
	}
	// A steady poll is one request, which cannot be lighter than the secret itself; what is not needed is not kept.
	l.Proxy.Requests()
	for range 3 {
		reading := l.MustPoll(kv, never)
		if reading.Credential != nil || !reading.Version.Equal(first.Version) {
			t.Errorf("read %+v, want version %v without a credential", reading, first.Version)
		}
		if requests := l.Proxy.Requests(); len(requests) != 1 || requests[0].Path != "/v1/"+at {
			t.Errorf("a steady poll makes %+v", requests)
		}
	}
	// Another daemon with the same key sees the same version.
	if again := l.MustPoll(l.Vault().KV(mount, deepPath, 1), always).Version; !again.Equal(first.Version) {
		t.Errorf("version %+v, then %+v", first.Version, again)
	}
	l.Config.DigestKey = []byte("another key")
	if other := l.MustPoll(l.Vault().KV(mount, deepPath, 1), always).Version; other.Equal(first.Version) {
		t.Error("the version tells the content to who does not have the key")
	}
	// Another key of the secret changes the version, not the credential; a rotation both; and there is no way back or forth.
	l.Server.MustWriteAt(at, oauth("note", 2))
	second := l.MustPoll(kv, always)
	key := []byte("k")
	one, two := l.Picked(first), l.Picked(second)
	if second.Version.Equal(first.Version) || one.Digest(key) != two.Digest(key) {
		t.Errorf("another note: version %v after %v", second.Version, first.Version)
	}
	l.Server.MustWriteAt(at, oauth("client_secret", "p8e-SecondSecondSecondSecondSecond123"))
	third := l.MustPoll(kv, always)
	if third.Version.Equal(second.Version) || l.Picked(third).ClientSecret.Reveal() != "p8e-SecondSecondSecondSecondSecond123" {
		t.Errorf("after a rotation: version %v", third.Version)
	}
	l.Server.MustWriteAt(at, oauth("note", 1.50))
	if back := l.MustPoll(kv, always).Version; !back.Equal(first.Version) || back.GoesBackFrom(third.Version) || third.Version.GoesBackFrom(back) {
		t.Errorf("the first content again has version %+v", back)
	}

	l.Server.MustDeleteAt(at)
	l.MustRefuse(kv, 0, "no secret", at)
	l.Server.MustWriteAt(at, oauth("client_secret", 7))
	reading := l.MustPoll(kv, always)
	_, refusal := reading.Credential(nil)
	if refusal == nil || !refusal.Version.Equal(reading.Version) {
		t.Fatalf("refused: %+v, version %+v", refusal, reading.Version)
	}
	l.FailsWith(refusal, "client_secret", "not a string", at)
	l.Server.MustWriteAt(at, map[string]any{"filler": strings.Repeat("x", 1<<20)})
	l.MustRefuse(kv, 0, "larger than 1024 KiB", at)
	l.Server.MustWriteAt(at, oauth("note", 1.50))
	if back := l.MustPoll(kv, always).Version; !back.Equal(first.Version) {
		t.Errorf("written again, version %+v", back)
	}
	if logged := l.Log.String(); strings.Contains(logged, "WARN") {
		t.Errorf("the usual case warns: %s", logged)
	}
}

// Both engines below a mount with slashes, each with the least policy. Without it they are forbidden, and the error names
// what is missing.
func TestDeepMounts(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		l, mount := newEngineLab(t, version)
		v := l.Vault()
		kv, at := v.KV(mount, deepPath, 2), mount+"/data/"+deepPath
		data := map[string]any{"data": oauth()}
		if version == 1 {
			kv, at, data = v.KV(mount, deepPath, 1), mount+"/"+deepPath, oauth()
		}
		l.Server.MustWriteAt(at, data)
		if got := l.Picked(l.MustPoll(kv, always)); got.ClientSecret.Reveal() != secretCanary {
			t.Errorf("KV version %d: read %v", version, got)
		}
		l.Server.MustSetPolicy(l.RoleID, vaulttest.ReadPolicyAt("other"))
		l.Eventually(func() bool { // the least time between two logins is over
			_, err := kv.Poll(t.Context(), always)
			return err != nil && !strings.Contains(err.Error(), "next login")
		})
		l.MustFail(kv, "permission denied", "policy", at)
	}
}

// The error names the setting to whoever mixes the versions of the engine up.
func TestKVVersionsMixedUp(t *testing.T) {
	l := newLab(t)
	l.UseTokenFile(l.Server.Token)
	one, two := l.Server.MustMountKV("one", 1), l.Server.MustMountKV("two", 2)
	l.Server.MustWriteAt(one+"/"+path, oauth())
	l.Server.MustWriteAt(two+"/data/"+path, map[string]any{"data": oauth()})
	v := l.Vault()
	l.MustRefuse(v.KV(two, path, 1), 0, "no secret at "+two+"/"+path, "kv_version")
	l.MustRefuse(v.KV(one, path, 2), 0, "no secret at "+one+"/"+path, "kv_version")
}

// Without a right to read, the error names what the engine needs.
func TestKV1Forbidden(t *testing.T) {
	l, mount := newEngineLab(t, 1)
	l.Server.MustSetPolicy(l.RoleID, vaulttest.ReadPolicyAt("other"))
	err := l.MustFail(l.Vault().KV(mount, deepPath, 1), "permission denied", mount+"/"+deepPath)
	if strings.Contains(err.Error(), "/data/") || strings.Contains(err.Error(), "/metadata/") {
		t.Errorf("it names paths of version 2: %v", err)
	}
}

// One request serves instances that call the fields differently.
func TestFieldsOverOneReading(t *testing.T) {
	l, mount := newEngineLab(t, 1)
	data := oauth("secret", "p8e-OtherOtherOtherOtherOtherOther1234")
	l.Server.MustWriteAt(mount+"/"+deepPath, data)
	reading := l.MustPoll(l.Vault().KV(mount, deepPath, 1), always)
	l.Proxy.Requests()
	for key, want := range map[string]string{"client_secret": secretCanary, "secret": "p8e-OtherOtherOtherOtherOtherOther1234"} {
		c, refusal := reading.Credential(credential.Fields{credential.FieldClientSecret: key})
		if refusal != nil || c.ClientSecret.Reveal() != want {
			t.Errorf("key %s: %v, %v", key, c, refusal)
		}
	}
	if _, refusal := reading.Credential(credential.Fields{credential.FieldClientSecret: "third"}); refusal == nil || !refusal.Version.Equal(reading.Version) {
		t.Errorf("a key that is not there: %v", refusal)
	}
	if n := len(l.Proxy.Requests()); n != 0 {
		t.Errorf("%d requests for the fields", n)
	}
}
