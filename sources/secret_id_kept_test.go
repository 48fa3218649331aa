package sources_test

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
	l := newWrappedLab(t)
	blocked := filepath.Join(l.config.StateDir, keptFile+".partial")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	v := l.vault()
	kv := l.kv(v)
	l.mustFail(kv, "is not unwrapped", "could not be kept", "state_dir", l.config.Auth.SecretIDFile)
	if got := unwraps(l.proxy.Requests()); got != 0 {
		t.Errorf("unwrapped %d times", got)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	v.Soon()
	l.mustPoll(kv, always)
}

// blockAfterUnwrapping lets nothing be kept any more once a token is being unwrapped, until what it returns is removed.
func (l *lab) blockAfterUnwrapping() (blocked string) {
	blocked = filepath.Join(l.config.StateDir, keptFile+".partial")
	l.proxy.Serve("/wrapping/unwrap", func(w http.ResponseWriter, r *http.Request) {
		if err := os.Mkdir(blocked, 0o700); err != nil {
			l.t.Error(err)
		}
		l.proxy.Pass(w, r)
	})
	return blocked
}

// A file that says nothing about the token in use is kept from being written after the unwrapping: the secret-id serves
// from memory, and is written as soon as that is possible.
func TestUnwrappedSecretIDThatIsNotWritten(t *testing.T) {
	l := newWrappedLab(t)
	blocked := l.blockAfterUnwrapping()
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	if !strings.Contains(l.log.String(), "could not be kept, and is lost at a stop") {
		t.Errorf("not told: %s", l.log)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	l.server.MustRevokeRoleTokens(l.roleID)
	l.pollUntilRead(v, kv)
	l.proxy.Forward()
	again := l.vault()
	l.mustPoll(l.kv(again), always)
}

// What is in memory only is not given up for a new one that cannot be kept either.
func TestUnwrappedSecretIDThatIsNotWrittenServesOn(t *testing.T) {
	l := newWrappedLab(t)
	l.blockAfterUnwrapping()
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	l.wrap(time.Hour)
	l.server.MustRevokeRoleTokens(l.roleID)
	l.pollUntilRead(v, kv)
}

// What was unwrapped is not left behind when it is not needed any more, and not before.
func TestKeptSecretIDIsForgotten(t *testing.T) {
	l := newWrappedLab(t)
	l.mustPoll(l.kv(l.vault()), always)
	file := filepath.Join(l.config.StateDir, keptFile)
	l.config.Auth.SecretIDWrapped = false
	l.writeSecretID("00000000-canary-canary-canary-000000000000")
	l.mustFail(l.kv(l.vault()), "was refused")
	if _, err := os.Stat(file); err != nil {
		t.Errorf("forgotten by a login that was refused: %v", err)
	}
	l.writeSecretID(l.server.MustSecretID(l.roleID))
	l.mustPoll(l.kv(l.vault()), always)
	if _, err := os.Stat(file); err == nil {
		t.Error("still there after a login without it")
	}
}

// Somebody empties the state directory, its digest key included: the secret-id serves from memory and is kept anew. Nobody
// has stolen anything, so nothing says so.
func TestKeptSecretIDThatWasLost(t *testing.T) {
	for name, lose := range map[string]func(file string) error{
		"removed":              os.Remove,
		"cut off":              func(file string) error { return os.Truncate(file, 20) },
		"the digest key alone": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := newWrappedLab(t)
			key := l.config.DigestKey
			l.config.MakeStateDir = func() ([]byte, error) { return key, nil }
			l.mustPoll(l.kv(l.vault()), always)
			v := l.vault() // has it from the file
			kv := l.kv(v)
			l.mustPoll(kv, always)
			key = []byte("fedcba9876543210fedcba9876543210")
			if err := lose(filepath.Join(l.config.StateDir, keptFile)); err != nil {
				t.Fatal(err)
			}
			l.server.MustRevokeRoleTokens(l.roleID)
			l.pollUntilRead(v, kv)
			l.mustPoll(l.kv(l.vault()), always)
			if got := unwraps(l.proxy.Requests()); got != 1 || strings.Contains(l.log.String(), "spent") {
				t.Errorf("unwrapped %d times: %s", got, l.log)
			}
		})
	}
}

// Nor does what was lost while no daemon ran look like a theft.
func TestKeptSecretIDThatIsDamaged(t *testing.T) {
	l := newWrappedLab(t)
	l.mustPoll(l.kv(l.vault()), always)
	file := filepath.Join(l.config.StateDir, keptFile)
	if err := os.Truncate(file, 20); err != nil {
		t.Fatal(err)
	}
	l.mustFail(l.kv(l.vault()), keptFile+" in state_dir is damaged", "put a new wrapped secret-id there")
}
