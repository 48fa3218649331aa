package login_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/sources/vault"
	"campaign-credsync/test/vaulttest"
)

// A login that could lock the role, and could not be remembered, is not made. One that was accepted before needs no note.
func TestNoLoginThatCouldNotBeRemembered(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	blocked := filepath.Join(l.Config.StateDir, "refused-secret-id.json.partial")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	v := l.Vault()
	kv := l.KV(v)
	l.MustFail(kv, "vault login: not tried", "state_dir")
	if requests := l.Proxy.Requests(); len(requests) != 0 {
		t.Errorf("Vault was asked: %+v", requests)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	l.MustPoll(kv, always)
	if _, err := os.Stat(filepath.Join(l.Config.StateDir, "refused-secret-id.json")); err == nil {
		t.Error("a login that was accepted is noted as one that may have been refused")
	}
}

// A refusal that cannot be written any more is remembered by the process.
func TestRefusalIsRememberedInTheProcess(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.WriteSecretID("00000000-canary-canary-canary-000000000000")
	l.Proxy.Serve("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := os.Mkdir(filepath.Join(l.Config.StateDir, "refused-secret-id.json.partial"), 0o700); err != nil {
			t.Error(err)
		}
		l.Proxy.Pass(w, r)
	})
	kv := l.KV(l.Vault())
	for range 3 {
		l.MustFail(kv, "was refused at auth/", "next login not before")
	}
	if n := vaulttest.Count(l.Proxy.Requests(), vaulttest.Request.Login); n != 1 {
		t.Errorf("%d logins", n)
	}
}

// What was noted and cannot be read may be a refusal.
func TestNoLoginWhereTheNoteCannotBeRead(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	if err := os.Mkdir(filepath.Join(l.Config.StateDir, "refused-secret-id.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	l.MustFail(l.KV(l.Vault()), "not tried", "refused-secret-id.json")
	if requests := l.Proxy.Requests(); len(requests) != 0 {
		t.Errorf("Vault was asked: %+v", requests)
	}
}

// Asking again and again, and after each start, makes two logins, however it is asked; two more are for other secret-ids.
func TestAskingForARefusedSecretIDHasAnEnd(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	right := l.Server.MustSecretID(l.RoleID)
	l.WriteSecretID("00000000-canary-canary-canary-000000000000")
	for range 4 {
		v := l.Vault()
		kv := l.KV(v)
		for range 3 {
			v.RetryRefused()
			_, err := kv.Poll(t.Context(), always)
			if err == nil {
				t.Fatal("a wrong secret-id was accepted")
			}
			l.MustNotShow("the error", err.Error())
		}
	}
	if logins := l.Logins(); logins != 2 {
		t.Errorf("%d logins, want 2", logins)
	}
	v := l.Vault()
	v.RetryRefused()
	l.MustFail(l.KV(v), "not even SIGHUP", l.Config.Auth.SecretIDFile, "next login not before")
	for i := range 3 {
		l.WriteSecretID("00000000-canary-canary-canary-11111111111" + strings.Repeat("1", i))
		l.MustFail(l.KV(l.Vault()), l.Config.Auth.SecretIDFile)
	}
	if logins := l.Logins(); logins != 2 {
		t.Errorf("%d logins with other wrong ones, want 2", logins)
	}
	if err := l.Server.Call(t.Context(), http.MethodPost, "auth/"+l.Server.AuthMount+"/login",
		map[string]string{"role_id": l.RoleID, "secret_id": right}, nil); err != nil {
		t.Errorf("the role is locked: %v", err)
	}
}

// A request that never left this host is none: the secret-id is tried as soon as Vault can be reached.
func TestNothingIsNotedWhereVaultIsOutOfReach(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.Proxy.Down()
	for range 5 {
		v := l.Vault()
		v.RetryRefused()
		l.MustFail(l.KV(v), "refused; is Vault running", "next login not before")
	}
	if err := l.Proxy.Up(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(l.Config.StateDir); err != nil || len(entries) != 0 {
		t.Errorf("noted: %v, %v", entries, err)
	}
	l.MustPoll(l.KV(l.Vault()), always)
}

// Soon forgets the wait after a failed login, and no refusal.
func TestSoonForgetsWaitsOnly(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.Proxy.Answer("/login", 503)
	v := l.Vault()
	kv := l.KV(v)
	for range 30 { // so that the wait is long
		v.ResetBackoff()
		l.MustFail(kv, "sealed")
	}
	if logins := l.Logins(); logins != 30 {
		t.Errorf("%d logins, want one each time", logins)
	}
	l.Proxy.Forward()
	v.ResetBackoff()
	l.MustPoll(kv, always)

	l.WriteSecretID("00000000-canary-canary-canary-000000000000")
	v = l.Vault()
	kv = l.KV(v)
	l.MustFail(kv, "refused")
	l.Proxy.Requests()
	for range 3 {
		v.ResetBackoff()
		l.MustFail(kv, "refused")
	}
	if logins := l.Logins(); logins != 0 {
		t.Errorf("%d logins with a refused secret-id", logins)
	}
}

// Several processes that start together make one login.
func TestProcessesTakeTurns(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.WriteSecretID("00000000-canary-canary-canary-000000000000")
	errs := make(chan error)
	const processes = 5
	for range processes {
		v, err := vault.New(l.Config)
		if err != nil {
			t.Fatal(err)
		}
		kv := l.KV(v)
		go func() {
			_, err := kv.Poll(t.Context(), always)
			errs <- err
		}()
	}
	for range processes {
		if err := <-errs; err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("answered %v", err)
		}
	}
	if logins := l.Logins(); logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}

// What another command of ours learnt counts: it was accepted since, so that the secret-id is not refused any more.
func TestWhatAnotherProcessLearntCounts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.Proxy.Answer("/login", http.StatusBadRequest, "invalid role or secret ID") // a node that was behind
	kv := l.KV(l.Vault())
	l.MustFail(kv, "was refused")
	l.Proxy.Forward()
	other := l.Vault()
	other.RetryRefused()
	l.MustPoll(l.KV(other), always)
	l.MustPoll(kv, always)
}
