package login_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Where the secret-id could not be kept the token stays unspent.
func TestWrappedSecretIDThatCouldNotBeKept(t *testing.T) {
	t.Parallel()
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

// blockAfterUnwrapping lets nothing be kept any more once a token is being unwrapped, until what it returns is removed.
func (l *lab) blockAfterUnwrapping() (blocked string) {
	blocked = filepath.Join(l.Config.StateDir, keptFile+".partial")
	l.Proxy.Serve("/wrapping/unwrap", func(w http.ResponseWriter, r *http.Request) {
		if err := os.Mkdir(blocked, 0o700); err != nil {
			l.T.Error(err)
		}
		l.Proxy.Pass(w, r)
	})
	return blocked
}

// A file that says nothing about the token in use is kept from being written after the unwrapping: the secret-id serves
// from memory, and is written as soon as that is possible.
func TestUnwrappedSecretIDThatIsNotWritten(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	blocked := l.blockAfterUnwrapping()
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	if !strings.Contains(l.Log.String(), "could not be kept, and is lost at a stop") {
		t.Errorf("not told: %s", l.Log)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	l.Server.MustRevokeRoleTokens(l.RoleID)
	l.pollUntilRead(v, kv)
	l.Proxy.Forward()
	again := l.Vault()
	l.MustPoll(l.KV(again), always)
}

// What is in memory only is not given up for a new one that cannot be kept either.
func TestUnwrappedSecretIDThatIsNotWrittenServesOn(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	l.blockAfterUnwrapping()
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	l.Wrap(time.Hour)
	l.Server.MustRevokeRoleTokens(l.RoleID)
	l.pollUntilRead(v, kv)
}

// What was unwrapped is not left behind when it is not needed any more, and not before.
func TestKeptSecretIDIsForgotten(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
