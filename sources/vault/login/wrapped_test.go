package login_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/vaulttest"
)

const keptFile = "secret-id.key"

func newWrappedLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.Wrap(time.Hour)
	return l
}

func unwraps(requests []vaulttest.Request) int {
	return vaulttest.Count(requests, func(r vaulttest.Request) bool { return r.Path == "/v1/sys/wrapping/unwrap" })
}

// What is unwrapped once serves every later start.
func TestWrappedSecretID(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	for start := range 3 {
		v := l.Vault()
		l.MustPoll(l.KV(v), always)
		if err := v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		requests := l.Proxy.Requests()
		if got, want := unwraps(requests), map[bool]int{true: 1}[start == 0]; got != want {
			t.Errorf("start %d: unwrapped %d times, want %d", start, got, want)
		}
	}
	if n := strings.Count(l.Log.String(), "secret-id unwrapped"); n != 1 {
		t.Errorf("%d lines, want 1: %s", n, l.Log)
	}
	file := filepath.Join(l.Config.StateDir, keptFile)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v", file, info.Mode())
	}
}

// Another wrapping token is unwrapped at once, though the token in use is fresh: it may end before that does.
func TestNewWrappedSecretIDIsUnwrappedAtOnce(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	changed := run(t, v)
	l.Proxy.Requests()
	l.Wrap(time.Hour)
	await(t, changed)
	l.MustPoll(kv, never)
	requests := l.Proxy.Requests()
	if got := unwraps(requests); got != 1 {
		t.Errorf("unwrapped %d times, want 1", got)
	}
	// The login with it follows, as soon as the last one is long enough ago, which it may have been already.
	for limit := time.Now().Add(vaulttest.Patience); vaulttest.Count(requests, vaulttest.Request.Login) == 0; {
		if time.Now().After(limit) {
			t.Fatalf("no login with it: %+v", requests)
		}
		time.Sleep(20 * time.Millisecond)
		l.MustPoll(kv, never)
		requests = append(requests, l.Proxy.Requests()...)
	}
	if strings.Contains(l.Log.String(), "level=WARN") {
		t.Errorf("it was worth a warning: %s", l.Log)
	}
	again := l.Vault()
	l.MustPoll(l.KV(again), always)
	if got := unwraps(l.Proxy.Requests()); got != 0 {
		t.Errorf("unwrapped %d times more after a restart", got)
	}
}

// A token that is spent raises the alarm. It is looked up again, as it may have been the wrong Vault that was asked.
func TestSpentWrappingToken(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	stolen := l.Wrap(time.Hour)
	thief := l.Server.MustUnwrap(stolen)
	l.Hidden = append(l.Hidden, thief["secret_id"].(string))
	v := l.Vault()
	kv := l.KV(v)
	for range 3 {
		l.MustFail(kv, "spent or not known", "somebody else may have unwrapped it", "audit log", l.Config.Auth.SecretIDFile, "next login not before")
	}
	l.Proxy.Requests()
	v.RetryRefused()
	l.MustFail(kv, "spent or not known")
	if requests := l.Proxy.Requests(); len(requests) != 1 || unwraps(requests) != 0 {
		t.Errorf("after Retry asked %+v, want one look", requests)
	}
	changed := run(t, v)
	l.Wrap(time.Hour)
	await(t, changed)
	l.MustPoll(kv, always)
}

// As long as a new one cannot be had, the secret-id before it serves.
func TestOldSecretIDServesUntilThereIsANewOne(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	for name, spoil := range map[string]func(){
		"spent":     func() { l.Server.MustUnwrap(l.Wrap(time.Hour)) },
		"gone":      func() { os.Remove(l.Config.Auth.SecretIDFile) },
		"empty":     func() { l.WriteSecretID("") },
		"another's": func() { l.WriteSecretID(l.otherWrapping()) },
		"cut off":   func() { l.Wrap(time.Hour); l.Proxy.Answer("/wrapping/", http.StatusServiceUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			before := len(l.Log.String())
			spoil()
			for range 2 { // the running daemon, and one started now
				v.ResetBackoff()
				l.MustPoll(kv, always)
				v = l.Vault()
				kv = l.KV(v)
				l.MustPoll(kv, always)
			}
			log := l.Log.String()[before:]
			if n := strings.Count(log, "using the previous one"); n < 1 || n > 3 { // one each
				t.Errorf("%d lines, want one of each: %s", n, log)
			}
			if level := map[bool]string{true: "level=WARN", false: "level=ERROR"}[name == "cut off"]; !strings.Contains(log, level) {
				t.Errorf("no line with %s: %s", level, log)
			}
			l.Proxy.Forward()
			l.Wrap(time.Hour)
			v.ResetBackoff()
			l.Proxy.Requests()
			l.MustPoll(kv, always)
			if got := unwraps(l.Proxy.Requests()); got != 1 {
				t.Errorf("the next one is unwrapped %d times, want 1", got)
			}
		})
	}
}

// otherWrapping wraps something that is no secret-id.
func (l *lab) otherWrapping() string {
	l.T.Helper()
	token, err := l.Server.Wrap(l.T.Context(), http.MethodGet, l.Server.Mount+"/data/"+path, nil, time.Hour)
	if err != nil {
		l.T.Fatal(err)
	}
	return token
}

func TestForeignWrappingTokenIsNotUnwrapped(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	token := l.otherWrapping()
	l.WriteSecretID(token)
	l.MustFail(l.KV(l.Vault()), "wraps the answer of "+l.Server.Mount+"/data/"+path, "somebody may have put it in the place of ours")
	if got := unwraps(l.Proxy.Requests()); got != 0 {
		t.Errorf("unwrapped %d times", got)
	}
	l.Server.MustUnwrap(token) // it is not spent
}

// The commonest mistake is no theft.
func TestPlainSecretIDTakenForAWrappedOne(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Config.Auth.SecretIDWrapped = true
	l.MustFail(l.KV(l.Vault()), "set vault.auth.secret_id_wrapped to false", l.Config.Auth.SecretIDFile)
}

// A daemon that was killed while it unwrapped says so: not everything that is spent was stolen.
func TestUnwrappingThatWasCutOff(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	l.Proxy.Serve("/wrapping/unwrap", func(w http.ResponseWriter, r *http.Request) {
		l.Proxy.Pass(discarded{}, r) // Vault did it, and its answer is lost
		panic(http.ErrAbortHandler)
	})
	l.MustFail(l.KV(l.Vault()), "unwrap the secret-id")
	l.Proxy.Forward()
	l.MustFail(l.KV(l.Vault()), "this daemon was cut off while it unwrapped it")
}

type discarded struct{}

func (discarded) Header() http.Header         { return http.Header{} }
func (discarded) Write(p []byte) (int, error) { return len(p), nil }
func (discarded) WriteHeader(int)             {}

// A new secret-id that Vault refuses is told of, and the token in use serves on. The next one takes its place.
func TestNewSecretIDThatIsRefused(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, always)
	before := l.Server.MustSecretIDs(l.RoleID)
	l.Wrap(time.Hour)
	l.Server.MustDestroySecretIDs(l.RoleID, before...)
	v.ResetBackoff()
	l.MustPoll(kv, always)
	if !strings.Contains(l.Log.String(), "login failed, using the current token until it ends") {
		t.Errorf("not told: %s", l.Log)
	}
	l.MustFail(l.KV(l.Vault()), "was refused", "put a new wrapped secret-id there")
	l.Wrap(time.Hour)
	for range 2 {
		l.MustPoll(l.KV(l.Vault()), always)
	}
}

// Commands that only read unwrap nothing, and use what is kept.
func TestReadersDoNotUnwrap(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	l.Config.MakeStateDir = l.stateDir
	l.MustFail(l.KV(l.Vault()), "was not unwrapped yet", "this command only reads", l.Config.Auth.SecretIDFile)
	if requests := l.Proxy.Requests(); len(requests) != 0 {
		t.Errorf("Vault was asked: %+v", requests)
	}
	l.Config.MakeStateDir = nil
	l.MustPoll(l.KV(l.Vault()), always)
	before, err := os.ReadFile(filepath.Join(l.Config.StateDir, keptFile))
	if err != nil {
		t.Fatal(err)
	}
	l.Wrap(time.Hour)
	l.Proxy.Requests()
	l.Config.MakeStateDir = l.stateDir
	l.MustPoll(l.KV(l.Vault()), always)
	if got := unwraps(l.Proxy.Requests()); got != 0 {
		t.Errorf("unwrapped %d times", got)
	}
	after, err := os.ReadFile(filepath.Join(l.Config.StateDir, keptFile))
	if err != nil || string(before) != string(after) {
		t.Errorf("written: %v", err)
	}
}

// The lockout of AppRole holds for what was unwrapped, too.
func TestRefusedUnwrappedSecretID(t *testing.T) {
	t.Parallel()
	l := newWrappedLab(t)
	l.MustPoll(l.KV(l.Vault()), always)
	l.Server.MustDestroySecretIDs(l.RoleID)
	l.Proxy.Requests()
	for range 6 {
		v := l.Vault()
		kv := l.KV(v)
		v.RetryRefused()
		if _, err := kv.Poll(t.Context(), always); err == nil {
			t.Fatal("accepted")
		} else {
			l.MustNotShow("the error", err.Error())
		}
	}
	if logins := l.Logins(); logins != 2 {
		t.Errorf("%d logins, want 2", logins)
	}
	l.Wrap(time.Hour)
	l.MustPoll(l.KV(l.Vault()), always)
}
