package ims_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/ims"
	standin "campaign-credsync/test/ims"
)

const canary = "p8e-Canary&%Canary+CanaryCanaryCana1"

var asked = credential.Credential{ClientID: "0123456789abcdef0123456789abcdef", ClientSecret: credential.NewSecret(canary)}

func probe(t *testing.T, endpoint string) error {
	t.Helper()
	err := ims.New(endpoint, []string{"openid", "AdobeID"}).Probe(t.Context(), asked)
	if err != nil && (strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), standin.Token) || strings.Contains(err.Error(), "Canary")) {
		t.Errorf("the error shows a secret: %v", err)
	}
	return err
}

func refused(err error) (text string, is bool) {
	r, is := errors.AsType[*credential.Refusal](err)
	if !is {
		return "", false
	}
	return r.Reason, r.Code == credential.ReasonIMSRefused
}

// Only IMS's own words decide.
func TestVerdicts(t *testing.T) {
	s := standin.New()
	defer s.Close()
	if err := probe(t, s.URL); err != nil {
		t.Errorf("accepted: %v", err)
	}
	for answer, says := range map[standin.Answer]string{
		standin.WrongSecret: "invalid_client (invalid client_secret parameter)", standin.WrongSecret401: "invalid_client (invalid client_secret",
		standin.WrongClient: "invalid_client (invalid client_id parameter)", standin.GrantNotEnabled: "unauthorized_client",
		standin.Echo: "invalid_client (invalid client_secret [redacted] parameter)",
	} {
		s.Answers(answer)
		if text, is := refused(probe(t, s.URL)); !is || !strings.Contains(text, says) || !strings.Contains(text, "Adobe Developer Console") {
			t.Errorf("%s: %q, %v", answer, text, is)
		}
	}
	for _, answer := range standin.Inconclusive {
		s.Answers(answer)
		err := probe(t, s.URL)
		if _, is := refused(err); err == nil || is {
			t.Errorf("%s: %v", answer, err)
		}
		var later interface{ RetryAt() time.Time }
		asksLater := answer == standin.Throttles || answer == standin.Unavailable
		if errors.As(err, &later) != asksLater {
			t.Errorf("%s: asks to come back: %v", answer, !asksLater)
		}
	}
	for i, r := range s.Requests() {
		if r.Method != http.MethodPost || r.Path != "/ims/token/v3" || r.ContentType != "application/x-www-form-urlencoded" || r.GrantType != "client_credentials" ||
			r.ClientID != asked.ClientID || r.Scope != "openid,AdobeID" || r.SecretSHA256 != standin.Digest(canary) || r.SecretOutsideOfTheBody {
			t.Errorf("request %d: %+v", i, r)
		}
	}
}

// Retry-After is obeyed, with a jitter of its own, and no more of it than a day is believed.
func TestRetryAfter(t *testing.T) {
	s := standin.New()
	defer s.Close()
	for _, answer := range []standin.Answer{standin.Throttles, standin.Unavailable} {
		for _, c := range []struct{ says, least, most time.Duration }{
			{time.Minute, 58 * time.Second, 80 * time.Second}, {100 * time.Hour, 23 * time.Hour, 30 * time.Hour},
			{10 * 365 * 24 * time.Hour, 23 * time.Hour, 30 * time.Hour},
		} {
			s.Answers(answer)
			s.RetryAfter(c.says)
			began := time.Now()
			later, is := errors.AsType[interface {
				error
				RetryAt() time.Time
			}](errors.Unwrap(probe(t, s.URL)))
			if !is {
				t.Fatalf("%s does not say when", answer)
			}
			if at := later.RetryAt(); at.Sub(began) < c.least || time.Until(at) > c.most {
				t.Errorf("%s of %v: %v", answer, c.says, time.Until(at))
			}
		}
	}
}

// A number that no computer counts to is bounded, too.
func TestRetryAfterThatIsNoNumber(t *testing.T) {
	after := "99999999999999999999"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", after)
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer s.Close()
	var later interface{ RetryAt() time.Time }
	if !errors.As(probe(t, s.URL), &later) || time.Until(later.RetryAt()) < 23*time.Hour || time.Until(later.RetryAt()) > 30*time.Hour {
		t.Errorf("%s: %v", after, later)
	}
	for _, after = range []string{"-99999999999999999999", "soon"} {
		if errors.As(probe(t, s.URL), &later) {
			t.Errorf("%s: %v", after, later.RetryAt())
		}
	}
}

// What is no answer says nothing about the secret: nobody there, somebody else there, a certificate that is not trusted.
func TestNoAnswer(t *testing.T) {
	tls := standin.NewTLS()
	defer tls.Close()
	plain := standin.New()
	defer plain.Close()
	gone := standin.New()
	gone.Close()
	for endpoint, says := range map[string]string{
		tls.URL: "certificate is not trusted", strings.Replace(plain.URL, "http:", "https:", 1): "does not speak TLS",
		gone.URL: "connection is refused", "https://ims.invalid": "cannot be resolved",
	} {
		if err := probe(t, endpoint); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), endpoint) {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	if n := len(tls.Requests()); n > 0 {
		t.Errorf("%d requests over a connection that is not trusted", n)
	}
	plain.Answers(standin.Hangs)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for len(plain.Requests()) == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if err := ims.New(plain.URL, []string{"openid"}).Probe(ctx, asked); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("called off: %v", err)
	}
}

// The proxy of the environment is used, and the certificate checked through it. The environment is read once in a process.
func TestProxy(t *testing.T) {
	if endpoint := os.Getenv("IMS_TEST_ENDPOINT"); endpoint != "" {
		if err := probe(t, endpoint); err != nil {
			t.Fatal(err)
		}
		return
	}
	s := standin.NewTLS()
	defer s.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, s.CertificatePEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	connected := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connected <- r.Method + " " + r.Host
		there, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "https://"))
		if err != nil {
			t.Error(err)
			return
		}
		w.WriteHeader(http.StatusOK)
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		pipe(here, there)
	}))
	defer proxy.Close()
	for _, c := range []struct {
		name, env string
		fits      bool
	}{
		{"proxy", "HTTPS_PROXY=" + proxy.URL, true},
		{"a proxy that is none", "HTTPS_PROXY=http://user:" + canary + "@%zz", false},
		{"no proxy for it", "NO_PROXY=example.com", false},
	} {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestProxy$", "-test.v")
		command.Env = append(os.Environ(), "IMS_TEST_ENDPOINT=https://example.com:1", "SSL_CERT_FILE="+authority, "HTTPS_PROXY="+proxy.URL, c.env)
		out, err := command.CombinedOutput()
		if (err == nil) != c.fits || strings.Contains(string(out), "Canary") {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
	if len(connected) != 1 || <-connected != "CONNECT example.com:1" {
		t.Errorf("the proxy was asked otherwise")
	}
	if n := len(s.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func pipe(a, b net.Conn) {
	copyAll := func(to, from net.Conn) {
		defer to.Close()
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
				return
			}
		}
	}
	go copyAll(a, b)
	copyAll(b, a)
}
