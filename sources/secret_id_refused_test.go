package sources_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/sources"
)

// A login that could lock the role, and could not be remembered, is not made. One that was accepted before needs no note.
func TestNoLoginThatCouldNotBeRemembered(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	blocked := filepath.Join(l.config.StateDir, "refused-secret-id.json.partial")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	v := l.vault()
	kv := l.kv(v)
	l.mustFail(kv, "login at auth/", "not tried", "state_dir")
	if requests := l.proxy.Requests(); len(requests) != 0 {
		t.Errorf("Vault was asked: %+v", requests)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	l.mustPoll(kv, always)
	if _, err := os.Stat(filepath.Join(l.config.StateDir, "refused-secret-id.json")); err == nil {
		t.Error("a login that was accepted is noted as one that may have been refused")
	}
}

// What was noted and cannot be read may be a refusal.
func TestNoLoginWhereTheNoteCannotBeRead(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	if err := os.Mkdir(filepath.Join(l.config.StateDir, "refused-secret-id.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	l.mustFail(l.kv(l.vault()), "not tried", "refused-secret-id.json")
	if requests := l.proxy.Requests(); len(requests) != 0 {
		t.Errorf("Vault was asked: %+v", requests)
	}
}

// Asking again and again, and after each start, makes three logins, however it is asked; the fourth is for another secret-id.
func TestAskingForARefusedSecretIDHasAnEnd(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	right := l.server.MustSecretID(l.roleID)
	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	for range 4 {
		v := l.vault()
		kv := l.kv(v)
		for range 3 {
			v.Retry()
			_, err := kv.Poll(t.Context(), always)
			if err == nil {
				t.Fatal("a wrong secret-id was accepted")
			}
			l.mustNotShow("the error", err.Error())
		}
	}
	if logins := l.logins(); logins != 3 {
		t.Errorf("%d logins, want 3", logins)
	}
	v := l.vault()
	v.Retry()
	l.mustFail(l.kv(v), "not even SIGHUP", l.config.Auth.SecretIDFile, "next login not before")
	for i := range 3 {
		l.writeSecretID("00000000-canary-canary-canary-11111111111" + strings.Repeat("1", i))
		l.mustFail(l.kv(l.vault()), l.config.Auth.SecretIDFile)
	}
	if logins := l.logins(); logins != 1 {
		t.Errorf("%d logins with other wrong ones, want 1", logins)
	}
	if err := l.server.Call(t.Context(), http.MethodPost, "auth/"+l.server.AuthMount+"/login",
		map[string]string{"role_id": l.roleID, "secret_id": right}, nil); err != nil {
		t.Errorf("the role is locked: %v", err)
	}
}

// Soon forgets the wait after a failed login, and no refusal.
func TestSoonForgetsWaitsOnly(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.proxy.Answer("/login", 503)
	v := l.vault()
	kv := l.kv(v)
	for range 30 { // so that the wait is long
		v.Soon()
		l.mustFail(kv, "sealed")
	}
	if logins := l.logins(); logins != 30 {
		t.Errorf("%d logins, want one each time", logins)
	}
	l.proxy.Forward()
	v.Soon()
	l.mustPoll(kv, always)

	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	v = l.vault()
	kv = l.kv(v)
	l.mustFail(kv, "refused")
	l.proxy.Requests()
	for range 3 {
		v.Soon()
		l.mustFail(kv, "refused")
	}
	if logins := l.logins(); logins != 0 {
		t.Errorf("%d logins with a refused secret-id", logins)
	}
}

// Several processes that start together, before there is a state directory, make one login.
func TestProcessesTakeTurns(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	l.config.StateDir = filepath.Join(t.TempDir(), "state")
	l.config.MakeStateDir = func() ([]byte, error) {
		return []byte("the key of that directory"), os.MkdirAll(l.config.StateDir, 0o700)
	}
	errs := make(chan error)
	const processes = 5
	for i := range processes {
		config := l.config
		config.DigestKey = []byte{byte(i), 1} // each has found no key, and has made one up
		v, err := sources.NewVault(config)
		if err != nil {
			t.Fatal(err)
		}
		kv := l.kv(v)
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
	if logins := l.logins(); logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}

// What another command of ours learnt counts: it has logged in since, so that nothing is refused any more.
func TestWhatAnotherProcessLearntCounts(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	right, err := os.ReadFile(l.config.Auth.SecretIDFile)
	if err != nil {
		t.Fatal(err)
	}
	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	kv := l.kv(l.vault())
	l.mustFail(kv, "was refused")
	if err := os.Remove(filepath.Join(l.config.StateDir, "refused-secret-id.json")); err != nil { // as a login of another does
		t.Fatal(err)
	}
	l.proxy.Requests()
	if _, err := kv.Poll(t.Context(), always); err == nil {
		t.Error("the wrong one was accepted")
	}
	if len(l.proxy.Requests()) == 0 {
		t.Error("it goes by what it remembers itself")
	}
	l.writeSecretID(strings.TrimSpace(string(right)))
	l.mustPoll(kv, always)
}
