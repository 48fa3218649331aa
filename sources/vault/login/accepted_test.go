package login_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/vaulttest"
)

// cutOff has a process that begins now log in, and ends it before Vault has answered. It reports whether it tried.
func (l *lab) cutOff() bool {
	l.T.Helper()
	l.Proxy.Requests()
	l.Proxy.Serve("/login", func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // a client that goes away is noticed only then
		<-r.Context().Done()
	})
	defer l.Proxy.Forward()
	ctx, cancel := context.WithCancel(l.T.Context())
	defer cancel()
	ended := make(chan error, 1)
	kv := l.KV(l.Vault())
	go func() {
		_, err := kv.Poll(ctx, always)
		ended <- err
	}()
	arrived := make(chan error, 1)
	go func() { arrived <- l.Proxy.Await(ctx, 1, vaulttest.Request.Login) }()
	select {
	case err := <-ended:
		l.FailsWith(err, "cut off before their answer", "next login not before")
		cancel()
		<-arrived
		return false
	case err := <-arrived:
		if err != nil {
			l.T.Fatal(err)
		}
		cancel()
		<-ended
		return true
	}
}

// What Vault has accepted is right: a process that is ended before the answer costs it nothing, however often.
func TestAcceptedSecretIDIsNotPutOff(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.MustPoll(l.KV(l.Vault()), always)
	for range 6 {
		if !l.cutOff() {
			t.Fatal("not tried")
		}
	}
	l.MustPoll(l.KV(l.Vault()), always)
	content, err := os.ReadFile(filepath.Join(l.Config.StateDir, "accepted-secret-id.json"))
	if err != nil {
		t.Fatal(err)
	}
	l.MustNotShow("the record", string(content))

	// Not even while Vault refuses others.
	right, err := os.ReadFile(l.Config.Auth.SecretIDFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"canary-one", "canary-two", "canary-three", "canary-four"} {
		l.WriteSecretID(wrong)
		l.MustFail(l.KV(l.Vault()), "was refused")
	}
	l.WriteSecretID("canary-five")
	l.MustFail(l.KV(l.Vault()), "next login not before")
	l.WriteSecretID(strings.TrimSpace(string(right)))
	l.MustPoll(l.KV(l.Vault()), always)
}

// One that was accepted, and is refused now, is as good as any other that was never accepted.
func TestAcceptedSecretIDThatIsRefusedSince(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.MustPoll(l.KV(l.Vault()), always)
	l.Server.MustDestroySecretIDs(l.RoleID)
	l.MustFail(l.KV(l.Vault()), "was refused")
	l.Proxy.Requests()
	for range 2 {
		l.MustFail(l.KV(l.Vault()), "was refused")
	}
	if logins := l.Logins(); logins != 0 {
		t.Errorf("%d logins with what was refused", logins)
	}
	v := l.Vault()
	v.RetryRefused()
	l.MustFail(l.KV(v), "was refused")
	if _, err := os.Stat(filepath.Join(l.Config.StateDir, "accepted-secret-id.json")); err == nil {
		t.Error("it is still noted as accepted")
	}
}

// A secret-id that nobody has answered for may be a wrong one, which Vault counts: it is tried twice at once, then once in
// four minutes, and at most four times in a row. Another one is not held up by it.
func TestUnansweredTriesAreSpread(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	second := l.Server.MustSecretID(l.RoleID)
	for try := 1; try <= 4; try++ {
		if !l.cutOff() {
			t.Fatalf("try %d is not made", try)
		}
		if try == 1 {
			continue
		}
		want := map[bool]time.Duration{true: 16 * time.Minute, false: 4 * time.Minute}[try == 4]
		for range 3 {
			err := l.MustFail(l.KV(l.Vault()), "cut off before their answer", l.Config.Auth.SecretIDFile)
			_, at, _ := strings.Cut(err.Error(), "next login not before ")
			until, parseErr := time.Parse(time.RFC3339, at)
			if wait := time.Until(until); parseErr != nil || wait > want || wait < want-2*time.Minute {
				t.Errorf("after %d tries it waits for %s, want %s: %v", try, wait, want, err)
			}
		}
		l.editRefused(func(noted map[string]any) { noted["last"] = time.Now().Add(-4*time.Minute - time.Second) })
	}
	if l.cutOff() {
		t.Error("a fifth try is made")
	}
	l.editRefused(func(noted map[string]any) { noted["last"] = time.Now().Add(-17 * time.Minute) })
	for range 2 {
		if !l.cutOff() {
			t.Error("not tried when Vault has forgotten the others")
		}
	}
	first, err := os.ReadFile(l.Config.Auth.SecretIDFile)
	if err != nil {
		t.Fatal(err)
	}
	l.WriteSecretID(second)
	l.MustPoll(l.KV(l.Vault()), always)
	l.WriteSecretID(strings.TrimSpace(string(first)))
	l.MustPoll(l.KV(l.Vault()), always)
}

// editRefused changes what is noted of refused logins.
func (l *lab) editRefused(edit func(noted map[string]any)) {
	l.T.Helper()
	file := filepath.Join(l.Config.StateDir, "refused-secret-id.json")
	var noted map[string]any
	content, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(content, &noted)
	}
	if err != nil {
		l.T.Fatal(err)
	}
	edit(noted)
	if content, err = json.Marshal(noted); err == nil {
		err = os.WriteFile(file, content, 0o600)
	}
	if err != nil {
		l.T.Fatal(err)
	}
}

// A role may bind no secret-id: then the role-id is enough, and none that is refused locks anything.
func TestRoleWithoutSecretID(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.Config.Auth.SecretIDFile = ""
	v := l.Vault()
	kv := l.KV(v)
	l.MustFail(kv, "missing secret_id", "set vault.auth.secret_id_file", "next login not before")
	l.Server.MustSetRole(l.RoleID, map[string]any{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.1/32"})
	v.RetryRefused()
	l.MustPoll(kv, always)
	l.Config.Auth.RoleID = credential.NewSecret("00000000-1111-2222-3333-444444444444")
	for range 6 {
		v := l.Vault()
		l.MustFail(l.KV(v), "invalid role", "role id is right")
	}
	if entries, err := os.ReadDir(l.Config.StateDir); err != nil || len(entries) != 0 {
		t.Errorf("noted: %v, %v", entries, err)
	}
}
