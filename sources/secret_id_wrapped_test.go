package sources_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/sources/vaulttest"
)

const keptFile = "secret-id.key"

func newWrappedLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.wrap(time.Hour)
	return l
}

func unwraps(requests []vaulttest.Request) int {
	return vaulttest.Count(requests, func(r vaulttest.Request) bool { return r.Path == "/v1/sys/wrapping/unwrap" })
}

// What is unwrapped once serves every later start.
func TestWrappedSecretID(t *testing.T) {
	l := newWrappedLab(t)
	for start := range 3 {
		v := l.vault()
		l.mustPoll(l.kv(v), always)
		if err := v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		requests := l.proxy.Requests()
		if got, want := unwraps(requests), map[bool]int{true: 1}[start == 0]; got != want {
			t.Errorf("start %d: unwrapped %d times, want %d", start, got, want)
		}
	}
	if n := strings.Count(l.log.String(), "secret-id unwrapped"); n != 1 {
		t.Errorf("%d lines, want 1: %s", n, l.log)
	}
	file := filepath.Join(l.config.StateDir, keptFile)
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
	l := newWrappedLab(t)
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	changed := run(t, v)
	l.proxy.Requests()
	l.wrap(time.Hour)
	await(t, changed)
	l.mustPoll(kv, never)
	requests := l.proxy.Requests()
	if got := unwraps(requests); got != 1 {
		t.Errorf("unwrapped %d times, want 1", got)
	}
	// The login with it follows, as soon as the last one is long enough ago, which it may have been already.
	for limit := time.Now().Add(time.Minute); vaulttest.Count(requests, vaulttest.Request.Login) == 0; {
		if time.Now().After(limit) {
			t.Fatalf("no login with it: %+v", requests)
		}
		time.Sleep(20 * time.Millisecond)
		l.mustPoll(kv, never)
		requests = append(requests, l.proxy.Requests()...)
	}
	if strings.Contains(l.log.String(), "level=WARN") {
		t.Errorf("it was worth a warning: %s", l.log)
	}
	again := l.vault()
	l.mustPoll(l.kv(again), always)
	if got := unwraps(l.proxy.Requests()); got != 0 {
		t.Errorf("unwrapped %d times more after a restart", got)
	}
}

// A token that is spent raises the alarm, once, and is left alone until a person acts.
func TestSpentWrappingToken(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	stolen := l.wrap(time.Hour)
	thief := l.server.MustUnwrap(stolen)
	l.hidden = append(l.hidden, thief["secret_id"].(string))
	v := l.vault()
	kv := l.kv(v)
	for range 3 {
		l.mustFail(kv, "spent or not known", "somebody else may have unwrapped it", "audit log", l.config.Auth.SecretIDFile, "next login not before")
	}
	if requests := l.proxy.Requests(); len(requests) != 1 {
		t.Errorf("asked %+v, want one question", requests)
	}
	v.Retry()
	l.mustFail(kv, "spent or not known")
	if requests := l.proxy.Requests(); len(requests) != 1 {
		t.Errorf("after Retry asked %+v, want one question", requests)
	}
	changed := run(t, v)
	l.wrap(time.Hour)
	await(t, changed)
	l.mustPoll(kv, always)
}

// As long as a new one cannot be had, the secret-id before it serves.
func TestOldSecretIDServesUntilThereIsANewOne(t *testing.T) {
	l := newWrappedLab(t)
	v := l.vault()
	kv := l.kv(v)
	l.mustPoll(kv, always)
	for name, spoil := range map[string]func(){
		"spent":     func() { l.server.MustUnwrap(l.wrap(time.Hour)) },
		"gone":      func() { os.Remove(l.config.Auth.SecretIDFile) },
		"empty":     func() { l.writeSecretID("") },
		"another's": func() { l.writeSecretID(l.otherWrapping()) },
		"cut off":   func() { l.wrap(time.Hour); l.proxy.Answer("/wrapping/", http.StatusServiceUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			before := len(l.log.String())
			spoil()
			for range 2 { // the running daemon, and one started now
				v.Soon()
				l.mustPoll(kv, always)
				v = l.vault()
				kv = l.kv(v)
				l.mustPoll(kv, always)
			}
			log := l.log.String()[before:]
			if n := strings.Count(log, "the one before it serves"); n < 1 || n > 3 { // one each
				t.Errorf("%d lines, want one of each: %s", n, log)
			}
			if level := map[bool]string{true: "level=WARN", false: "level=ERROR"}[name == "cut off"]; !strings.Contains(log, level) {
				t.Errorf("no line with %s: %s", level, log)
			}
			l.proxy.Forward()
			l.wrap(time.Hour)
			v.Soon()
			l.proxy.Requests()
			l.mustPoll(kv, always)
			if got := unwraps(l.proxy.Requests()); got != 1 {
				t.Errorf("the next one is unwrapped %d times, want 1", got)
			}
		})
	}
}

// otherWrapping wraps something that is no secret-id.
func (l *lab) otherWrapping() string {
	l.t.Helper()
	token, err := l.server.Wrap(l.t.Context(), http.MethodGet, l.server.Mount+"/data/"+path, nil, time.Hour)
	if err != nil {
		l.t.Fatal(err)
	}
	return token
}

func TestForeignWrappingTokenIsNotUnwrapped(t *testing.T) {
	l := newWrappedLab(t)
	token := l.otherWrapping()
	l.writeSecretID(token)
	l.mustFail(l.kv(l.vault()), "wraps the answer of "+l.server.Mount+"/data/"+path, "somebody may have put it in the place of ours")
	if got := unwraps(l.proxy.Requests()); got != 0 {
		t.Errorf("unwrapped %d times", got)
	}
	l.server.MustUnwrap(token) // it is not spent
}

// The commonest mistake is no theft.
func TestPlainSecretIDTakenForAWrappedOne(t *testing.T) {
	l := newLab(t)
	l.config.Auth.SecretIDWrapped = true
	l.mustFail(l.kv(l.vault()), "looks like a secret-id", "vault.auth.secret_id_wrapped to false", l.config.Auth.SecretIDFile)
}

// A daemon that was killed while it unwrapped says so: not everything that is spent was stolen.
func TestUnwrappingThatWasCutOff(t *testing.T) {
	l := newWrappedLab(t)
	l.proxy.Serve("/wrapping/unwrap", func(w http.ResponseWriter, r *http.Request) {
		l.proxy.Pass(discarded{}, r) // Vault did it, and its answer is lost
		panic(http.ErrAbortHandler)
	})
	l.mustFail(l.kv(l.vault()), "unwrap the secret-id")
	l.proxy.Forward()
	l.mustFail(l.kv(l.vault()), "this daemon was cut off while it unwrapped it")
}

type discarded struct{}

func (discarded) Header() http.Header         { return http.Header{} }
func (discarded) Write(p []byte) (int, error) { return len(p), nil }
func (discarded) WriteHeader(int)             {}

// A new secret-id that Vault refuses does not take the place of the one before.
func TestNewSecretIDThatIsRefused(t *testing.T) {
	l := newWrappedLab(t)
	l.mustPoll(l.kv(l.vault()), always)
	before := l.server.MustSecretIDs(l.roleID)
	l.wrap(time.Hour)
	l.server.MustDestroySecretIDs(l.roleID, before...)
	for range 2 {
		l.mustPoll(l.kv(l.vault()), always)
	}
	if !strings.Contains(l.log.String(), "the one before it serves") {
		t.Errorf("not told: %s", l.log)
	}
	l.wrap(time.Hour)
	for range 2 {
		l.mustPoll(l.kv(l.vault()), always)
	}
	if content, err := os.ReadFile(filepath.Join(l.config.StateDir, keptFile)); err != nil || strings.Contains(string(content), "previous") {
		t.Errorf("the old one is kept after another was accepted: %v", err)
	}
}

// Commands that only read unwrap nothing, and use what is kept.
func TestReadersDoNotUnwrap(t *testing.T) {
	l := newWrappedLab(t)
	l.config.OnlyReads = true
	l.mustFail(l.kv(l.vault()), "was not unwrapped yet", "this command only reads", l.config.Auth.SecretIDFile)
	if requests := l.proxy.Requests(); len(requests) != 0 {
		t.Errorf("Vault was asked: %+v", requests)
	}
	l.config.OnlyReads = false
	l.mustPoll(l.kv(l.vault()), always)
	before, err := os.ReadFile(filepath.Join(l.config.StateDir, keptFile))
	if err != nil {
		t.Fatal(err)
	}
	l.wrap(time.Hour)
	l.proxy.Requests()
	l.config.OnlyReads = true
	l.mustPoll(l.kv(l.vault()), always)
	if got := unwraps(l.proxy.Requests()); got != 0 {
		t.Errorf("unwrapped %d times", got)
	}
	after, err := os.ReadFile(filepath.Join(l.config.StateDir, keptFile))
	if err != nil || string(before) != string(after) {
		t.Errorf("written: %v", err)
	}
}

// The lockout of AppRole holds for what was unwrapped, too.
func TestRefusedUnwrappedSecretID(t *testing.T) {
	l := newWrappedLab(t)
	l.mustPoll(l.kv(l.vault()), always)
	l.server.MustDestroySecretIDs(l.roleID)
	l.proxy.Requests()
	for range 6 {
		v := l.vault()
		kv := l.kv(v)
		v.Retry()
		if _, err := kv.Poll(t.Context(), always); err == nil {
			t.Fatal("accepted")
		} else {
			l.mustNotShow("the error", err.Error())
		}
	}
	if logins := l.logins(); logins != 3 {
		t.Errorf("%d logins, want 3", logins)
	}
	l.wrap(time.Hour)
	l.mustPoll(l.kv(l.vault()), always)
}

// An hour later a token that was found unusable is looked up again: it may have been the wrong Vault that was asked.
func TestUnusableWrappingTokenIsNotPutOffForEver(t *testing.T) {
	l := newLab(t)
	l.server.MustWrite(path, oauth())
	l.hidden = append(l.hidden, l.server.MustUnwrap(l.wrap(time.Hour))["secret_id"].(string))
	kv := l.kv(l.vault())
	until := func(err error) string {
		_, at, _ := strings.Cut(err.Error(), "next login not before ")
		return at
	}
	first := until(l.mustFail(kv, "spent or not known"))
	for range 5 {
		if next := until(l.mustFail(kv, "spent or not known")); next != first {
			t.Fatalf("put off from %s to %s", first, next)
		}
	}
}
