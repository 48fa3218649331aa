package login_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Where the secret-id could not be kept the token stays unspent.
func TestWrappedSecretIDThatCouldNotBeKept(t *testing.T) {
	l := newWrappedLab(t)
	blocked := filepath.Join(l.Config.StateDir, keptFile+".partial")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	v := l.Vault()
	kv := l.KV(v)
	l.MustFail(kv, "is not unwrapped", "could not be kept", "state_dir", l.Config.Auth.SecretIDFile)
	if got := unwraps(l.Proxy.Requests()); got != 0 {
		t.Errorf("unwrapped %d times", got)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	v.ResetBackoff()
	l.MustPoll(kv, always)
}

// What cannot be written any more once it is unwrapped is lost, and that is said; the next wrapped secret-id mends it.
func TestUnwrappedSecretIDThatIsNotWritten(t *testing.T) {
	l := newWrappedLab(t)
	blocked := filepath.Join(l.Config.StateDir, keptFile+".partial")
	l.Proxy.Serve("/wrapping/unwrap", func(w http.ResponseWriter, r *http.Request) {
		if err := os.Mkdir(blocked, 0o700); err != nil {
			l.T.Error(err)
		}
		l.Proxy.Pass(w, r)
	})
	kv := l.KV(l.Vault())
	l.MustFail(kv, "could not be kept, and is lost", "put a new wrapped secret-id there", "next login not before")
	l.Proxy.Forward()
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	l.Wrap(time.Hour)
	l.MustPoll(l.KV(l.Vault()), always)
}

// What was unwrapped is not left behind when it is not needed any more, and not before.
func TestKeptSecretIDIsForgotten(t *testing.T) {
	l := newWrappedLab(t)
	l.MustPoll(l.KV(l.Vault()), always)
	file := filepath.Join(l.Config.StateDir, keptFile)
	l.Config.Auth.SecretIDWrapped = false
	l.WriteSecretID("00000000-canary-canary-canary-000000000000")
	l.MustFail(l.KV(l.Vault()), "was refused")
	if _, err := os.Stat(file); err != nil {
		t.Errorf("forgotten by a login that was refused: %v", err)
	}
	l.WriteSecretID(l.Server.MustSecretID(l.RoleID))
	l.MustPoll(l.KV(l.Vault()), always)
	if _, err := os.Stat(file); err == nil {
		t.Error("still there after a login without it")
	}
}

// What was kept is lost, by a person or a disk: the token in use serves on, and the alarm names that too.
func TestKeptSecretIDThatWasLost(t *testing.T) {
	for name, lose := range map[string]func(file string) error{
		"removed": os.Remove,
		"cut off": func(file string) error { return os.Truncate(file, 20) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newWrappedLab(t)
			v := l.Vault()
			l.MustPoll(l.KV(v), always)
			if err := lose(filepath.Join(l.Config.StateDir, keptFile)); err != nil {
				t.Fatal(err)
			}
			l.MustPoll(l.KV(v), always)
			l.MustFail(l.KV(l.Vault()), "was removed from state_dir", "put a new wrapped secret-id there")
		})
	}
}
