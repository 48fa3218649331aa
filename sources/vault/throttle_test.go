package vault_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/sources/vault"
	"campaign-credsync/test/vaulttest"
)

// asks answers what every quota, load balancer and maintenance page may: leave me alone.
func asks(status int, after string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", after)
		w.WriteHeader(status)
		io.WriteString(w, `{"errors":["for a test"]}`)
	}
}

// laterThan returns how long after now the error says that there is an answer; 0 when it does not say.
func laterThan(err error, now time.Time) time.Duration {
	var later interface{ RetryAt() time.Time }
	if !errors.As(err, &later) {
		return 0
	}
	return later.RetryAt().Sub(now)
}

// What is asked for is given, up to five minutes, and something random on top; then nothing at all is asked.
func TestRetryAfterIsObeyed(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kv, other := l.KV(v), l.KV(v)
	l.MustPoll(kv, never)
	for _, c := range []struct {
		name        string
		answer      http.HandlerFunc
		least, most time.Duration // before that there is no answer, and at the latest then
	}{
		{"seconds", asks(429, "120"), 2 * time.Minute, 3 * time.Minute},
		{"of 503", asks(503, "7"), 7 * time.Second, 15 * time.Second},
		{"of another status", asks(418, "30"), 30 * time.Second, time.Minute},
		{"more than five minutes", asks(503, "301"), 5 * time.Minute, 6 * time.Minute},
		{"a huge number", asks(429, "99999999999999999999999"), 5 * time.Minute, 6 * time.Minute},
		{"none", asks(429, "0"), 0, 0},
		{"negative", asks(429, "-120"), 0, 0},
		{"a fraction", asks(429, "1.5"), 0, 0},
		{"a word", asks(503, "soon"), 0, 0},
		{"a date", asks(503, "Fri, 31 Dec 9999 23:59:59 GMT"), 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			v.RetryRefused()
			l.Proxy.Serve("/v1/", c.answer)
			began := time.Now()
			err := l.MustFail(kv, l.Proxy.Address)
			ended := time.Now()
			if c.most == 0 {
				if later := laterThan(err, began); later != 0 {
					t.Errorf("it waits for %v: %v", later, err)
				}
				return
			}
			if least, most := laterThan(err, ended), laterThan(err, began); most < c.least || least > c.most {
				t.Errorf("the next request comes after %v, want %v to %v", most, c.least, c.most)
			}
			if !strings.Contains(err.Error(), "Retry-After") {
				t.Errorf("it does not say why it waits: %v", err)
			}
			l.Proxy.Forward()
			l.Proxy.Requests()
			for range 3 {
				if again := l.MustFail(kv, "Retry-After"); again.Error() != err.Error() {
					t.Errorf("one fact in two ways: %v; %v", err, again)
				}
				l.MustFail(other, "Retry-After")
			}
			if requests := l.Proxy.Requests(); len(requests) != 0 {
				t.Errorf("asked all the same: %+v", requests)
			}
			v.ResetBackoff()
			l.MustPoll(kv, never)
		})
	}
}

// Who answers a login so is left alone as well, also where an old token would still serve.
func TestRetryAfterOfALogin(t *testing.T) {
	t.Parallel()
	l := newLabWith(t, (*vaulttest.Server).ReadPolicy, 12*time.Second)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	kv := l.KV(v)
	l.MustPoll(kv, never)
	l.Proxy.Serve("/login", asks(429, "60"))
	var err error
	for err == nil {
		if time.Now().After(v.TokenExpires()) {
			t.Fatal("the token was not replaced before its end")
		}
		time.Sleep(20 * time.Millisecond)
		_, err = kv.Poll(t.Context(), never)
	}
	if later := laterThan(err, time.Now()); later < 59*time.Second || later > 2*time.Minute {
		t.Errorf("the next request comes after %v: %v", later, err)
	}
	if requests := l.Proxy.Requests(); !requests[len(requests)-1].Login() {
		t.Errorf("asked after the login: %+v", requests[len(requests)-1])
	}
	l.MustFail(kv, "Retry-After")
	if requests := l.Proxy.Requests(); len(requests) != 0 {
		t.Errorf("asked all the same: %+v", requests)
	}
	l.Proxy.Forward()
	v.RetryRefused()
	l.MustPoll(kv, never)
}

// The same of the question for the end of a token from a file, which is asked before the secret is.
func TestRetryAfterOfALookup(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	l.UseTokenFile(l.Server.MustToken(l.Server.ReadPolicy(path), time.Hour))
	l.Proxy.Serve("/lookup-self", asks(429, "60"))
	v := l.Vault()
	kv := l.KV(v)
	l.MustFail(kv, "Retry-After")
	if requests := l.Proxy.Requests(); len(requests) != 1 {
		t.Errorf("asked all the same: %+v", requests)
	}
	l.Proxy.Forward()
	v.RetryRefused()
	l.MustPoll(kv, never)
}

// The one that Vault sends: of a quota, with the headers switched on. It is over when it says, whatever the host asked.
func TestRateLimitQuota(t *testing.T) {
	t.Parallel()
	l := newLabOn(t, vaulttest.Start(t), (*vaulttest.Server).ReadPolicy, time.Hour) // its settings of quotas are for all
	l.Server.MustWrite(path, oauth())
	kv := l.KV(l.Vault())
	l.MustPoll(kv, never)
	if err := l.Server.Call(t.Context(), http.MethodPost, "sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true}, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Server.Call(t.Context(), http.MethodPost, "sys/quotas/rate-limit/test", map[string]any{
		"path": l.Server.Mount + "/", "rate": 1, "interval": "2s",
	}, nil); err != nil {
		t.Fatal(err)
	}
	var err error
	var began time.Time
	for err == nil {
		began = time.Now()
		_, err = kv.Poll(t.Context(), never)
	}
	later := laterThan(err, began)
	if later < time.Second || later > time.Minute {
		t.Fatalf("the next request comes after %v: %v", later, err)
	}
	l.Proxy.Requests()
	for err != nil {
		_, err = kv.Poll(t.Context(), never)
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < later {
		t.Errorf("asked after %v, before the %v that were to be waited", took, later)
	}
	if requests := l.Proxy.Requests(); len(requests) != 1 {
		t.Errorf("%d requests until one was accepted", len(requests))
	}
}

// Many hosts are asked for the same wait. None comes earlier, and they do not come together.
func TestHostsReturnApart(t *testing.T) {
	t.Parallel()
	const hosts = 150
	l := newLab(t)
	l.UseTokenFile(l.Server.Token) // a login notes on disk that it is made, which takes long
	l.Proxy.Serve("/v1/", asks(429, "1"))
	all := make([]*vault.Vault, hosts)
	for i := range all {
		all[i] = l.Vault()
	}
	const width = 4 * time.Second
	for row := range 3 {
		var first, last time.Duration = time.Hour, 0
		for _, v := range all {
			kv := l.KV(v)
			v.ResetBackoff()
			began := time.Now()
			_, err := kv.Poll(t.Context(), never)
			later, most := laterThan(err, time.Now()), laterThan(err, began)
			if most < time.Second || later > time.Second+width {
				t.Fatalf("the next request comes after %v: %v", most, err)
			}
			first, last = min(first, later), max(last, later)
		}
		if last-first < width*8/10 { // odds of less with 150 hosts: below 1e-12
			t.Errorf("refused %d times in a row they return between %v and %v, want over %v", row+1, first, last, width)
		}
	}
}

// Logins that fail wait at random up to a minute, however often they have failed.
func TestLoginBackoffSurvivesItsCap(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	// All methods wait alike. This one notes nothing on disk, which takes long.
	l.Config.Auth = config.Auth{Method: "jwt", Mount: "jwt", Role: "any", JWTFile: l.Config.Auth.SecretIDFile}
	l.Proxy.Answer("/login", http.StatusInternalServerError)
	v := l.Vault()
	kv := l.KV(v)
	const failures = 1000
	var sum, least, most time.Duration = 0, time.Hour, 0
	for i := range failures {
		v.ResetBackoff()
		began := time.Now()
		_, err := kv.Poll(t.Context(), never)
		wait := laterThan(err, time.Now())
		if wait > time.Minute || laterThan(err, began) <= 0 {
			t.Fatalf("the next login after %d failures comes after %v: %v", i+1, wait, err)
		}
		if i >= 10 {
			sum, least, most = sum+wait, min(least, wait), max(most, wait)
		}
	}
	if mean := sum / (failures - 10); mean < 27*time.Second || mean > 33*time.Second { // 5 standard deviations
		t.Errorf("%v on average", mean)
	}
	if least > 2*time.Second || most < 58*time.Second {
		t.Errorf("from %v to %v, which is not full jitter", least, most)
	}
	if logins := l.Logins(); logins != failures {
		t.Errorf("%d logins", logins)
	}
}
