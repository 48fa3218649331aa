package faults_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// What shows in none of the daemon's outputs, though Vault's answers hold it.
var answerCanary = "p8e-" + strings.Repeat("c4nary", 6)

// oddAnswer is one way of Vault, or of what stands before it, to answer.
type oddAnswer struct {
	name  string
	part  string // of the paths that are answered so
	serve http.HandlerFunc
	state string   // and reason; empty: degraded, as it cannot be reached
	says  []string // what last_error names, besides Vault's address
}

// Whatever Vault answers, and wherever it breaks off: what is applied is kept and guarded, the state says what and where,
// and when it is over the daemon goes on. One daemon goes through all of them.
func TestVaultAnswersWithTrouble(t *testing.T) {
	t.Parallel()
	// The metadata's answer as it begins, so that only the end is missing.
	half := `{"data":{"current_version":2,"versions":{"2":{"created_time":"2026-01-01T00:00:00Z"`
	cases := []oddAnswer{
		{"404", "/v1/kv-", answer(404, `{"errors":[]}`), "blocked/secret_missing", []string{"no secret at", "mount and path"}},
		{"404 of another program", "/v1/kv-", answer(404, "<html>nginx "+answerCanary+"</html>"), "", []string{"404", "not Vault", "vault.address"}},
		{"403 of another program", "/v1/kv-", answer(403, `{"message":"nginx `+answerCanary+`"}`), "", []string{"403", "not Vault", "vault.address"}},
		{"412", "/v1/kv-", answer(412, ""), "", []string{"412", "standby", "active node"}},
		{"472", "/v1/kv-", answer(472, ""), "", []string{"472", "standby"}},
		{"474", "/v1/kv-", answer(474, ""), "", []string{"474", "standby"}},
		{"503", "/v1/kv-", answer(503, `{"errors":["Vault is sealed"]}`), "degraded/vault_sealed", []string{"sealed", "unseal it"}},
		{"501", "/v1/kv-", answer(501, ""), "", []string{"not initialised"}},
		{"418", "/v1/kv-", answer(418, ""), "", []string{"418"}},
		{"redirect elsewhere", "/v1/kv-", redirect("http://198.51.100.1/" + answerCanary), "", []string{"redirects", "198.51.100.1", "vault.address"}},
		{"redirect to itself", "/v1/kv-", redirectToSelf, "", []string{"redirects", "api_addr"}},
		{"metadata cut", "/metadata/", cut(half + `"` + answerCanary), "", []string{"closed without an answer", "metadata"}},
		{"headers cut", "/metadata/", hangUp("HTTP/1.1 200 OK\r\nContent-Le"), "", []string{"not Vault's", "vault.address"}},
		{"no HTTP", "/metadata/", hangUp("SSH-2.0-OpenSSH_9.2\r\n"), "", []string{"not Vault's", "vault.address"}},
		{"chunk cut", "/metadata/", cutChunk(half), "", []string{"closed without an answer"}},
		{"half of the JSON", "/metadata/", answer(200, half), "", []string{"KV version 2", "vault.address"}},
		{"empty", "/metadata/", answer(200, ""), "", []string{"KV version 2"}},
		{"garbage", "/metadata/", answer(200, "\x00\xff\x1b[31m"+answerCanary), "", []string{"KV version 2"}},
		{"absurd numbers", "/metadata/", answer(200, `{"data":{"current_version":1e99}}`), "", []string{"KV version 2"}},
		{"negative version", "/metadata/", answer(200, `{"data":{"current_version":-1,"versions":{}}}`), "blocked/secret_deleted", []string{"newest version"}},
		{"nested", "/metadata/", answer(200, strings.Repeat(`{"data":`, 100_000)), "", []string{"KV version 2"}},
		{"302", "/metadata/", answer(302, ""), "", []string{"redirects"}},
		{"errors of 900 KiB", "/metadata/", answer(500, `{"errors":["`+strings.Repeat(answerCanary, 22_000)+`"]}`), "", []string{"500"}},
	}
	for _, after := range []string{"", "0", "1", "99999999", "-5", "9223372036854775808", "Wed, 21 Oct 2015 07:28:00 GMT",
		"Fri, 31 Dec 9999 23:59:59 GMT", "soon", "1\t"} {
		for _, status := range []int{429, 503} {
			if !*full && (status == 503 || len(after) < 2 || strings.Contains(after, "2015")) {
				continue
			}
			cases = append(cases, oddAnswer{fmt.Sprintf("%d, Retry-After %q", status, after), "/v1/kv-", retryAfter(status, after), "", []string{fmt.Sprint(status)}})
		}
	}
	w, secrets := world.Started(t, container.Options{Settings: "drift: {max_reverts: 1000}"})
	w.Secrets = append(w.Secrets, answerCanary)
	secret, version := secrets["prod"], 1
	for i, c := range cases {
		ok := t.Run(c.name, func(t *testing.T) {
			w.In(t)
			w.Proxy.Serve(c.part, c.serve)
			w.Signal(syscall.SIGUSR1)
			w.Is("prod", firstOf(c.state, "degraded/vault_unreachable"), c.says...)
			keepsAndGuards(w, secret)
			w.Proxy.Forward()
			if *full || i%6 == 0 { // nlserver takes most of the time
				version, secret = w.NewSecret("prod")
			}
			w.Signal(syscall.SIGUSR1)
			w.InSync(version)
			w.Holds("prod", secret)
		})
		w.In(t)
		if !ok {
			return
		}
	}
	w.Ran(version, "end", "set")
}

// What stands before Vault answers a login, or Vault refuses it for another reason than a wrong secret-id: the daemon says why, and
// logs in by itself when that is over, also one that is started anew.
func TestLoginIsAnsweredByAnother(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Secrets = append(w.Secrets, answerCanary)
	secretID, err := os.ReadFile(w.SecretID)
	w.Must(err)
	request := strings.TrimSpace(string(secretID)) + " " + answerCanary
	version := 1
	for _, c := range []oddAnswer{
		{"page", "/login", answer(400, "<html><title>Bad Request</title>nginx "+request+"</html>"), "", []string{"400", "not Vault"}},
		{"JSON of a gateway", "/login", answer(400, `{"message":"no upstream for `+request+`"}`), "", []string{"400", "not Vault"}},
		{"other words of Vault", "/login", answer(400, `{"errors":["source address \"10.0.0.7\" unauthorized"]}`), "degraded/login_refused", []string{"source address", "unauthorized"}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			w.In(t)
			w.Stop()
			w.Proxy.Serve(c.part, c.serve)
			w.StartDaemon()
			w.Is("prod", firstOf(c.state, "degraded/vault_unreachable"), append(c.says, "next login not before")...)
			keepsAndGuards(w, secrets["prod"])
			w.Stop()
			w.StartDaemon()
			w.Is("prod", firstOf(c.state, "degraded/vault_unreachable"), c.says...)
			w.Proxy.Forward()
			version, secrets["prod"] = w.NewSecret("prod")
			w.InSync(version)
			w.Holds("prod", secrets["prod"])
		})
		w.In(t)
		if !ok {
			return
		}
	}
}

// A version is there and its secret cannot be read to the end: nothing of it is applied.
func TestVaultBreaksOffInTheSecret(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Secrets = append(w.Secrets, answerCanary)
	_, second := w.NewSecret("prod")
	w.InSync(2)
	delete(secrets, "prod")
	whole := strings.Replace(w.Data("prod"), second, answerCanary, 1)
	for i, c := range []oddAnswer{
		{"cut in the secret", "/data/", cut(whole[:strings.Index(whole, answerCanary)+10]), "", []string{"closed without an answer", "data"}},
		{"cut before the last byte", "/data/", cut(whole[:len(whole)-1]), "", []string{"closed without an answer"}},
		{"JSON ends early", "/data/", answer(200, whole[:len(whole)-2]), "", []string{"KV version 2"}},
		{"403", "/data/", answer(403, `{"errors":["permission denied"]}`), "degraded/vault_denied", []string{"permission denied", "policy", "/data/"}},
		{"404", "/data/", answer(404, `{"errors":[]}`), "", []string{"listed and cannot be read"}},
		{"5xx burst", "/data/", burst(w, 500, 502, 504, 503), "", nil},
		{"larger than it may be", "/data/", answer(200, strings.Repeat(" ", 1<<20+1)+whole), "blocked/secret_malformed", []string{"larger than 1024 KiB", "credential only"}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			w.In(t)
			before, _ := w.SecretOnDisk(w.Ctx, "prod")
			sets := w.CountRuns("end", "set")
			w.Proxy.Serve(c.part, c.serve)
			version, secret := w.NewSecret("prod")
			w.Signal(syscall.SIGUSR1)
			if c.says != nil {
				w.Is("prod", firstOf(c.state, "degraded/vault_unreachable"), c.says...)
				keepsAndGuards(w, before)
				w.Ran(sets, "end", "set")
				w.Proxy.Forward()
				if strings.HasPrefix(c.state, "blocked") {
					version, secret = w.NewSecret("prod") // that version stays refused
				}
				w.Signal(syscall.SIGUSR1)
			}
			w.InSync(version)
			w.Holds("prod", secret)
			w.Ran(sets+1, "end", "set")
			w.Proxy.Forward()
		})
		w.In(t)
		if !ok {
			t.Fatalf("case %d", i)
		}
	}
}

// Vault answers, and takes long: nothing but its own polls waits for it.
func TestSlowVault(t *testing.T) {
	t.Parallel()
	delay, patience := 2*time.Second, world.Patience
	if *full {
		delay, patience = 15*time.Second, 4*time.Minute
	}
	w, secrets := world.Started(t, container.Options{})
	w.Proxy.Serve("/v1/", func(rw http.ResponseWriter, r *http.Request) {
		body := http.MaxBytesReader(rw, r.Body, 1<<20) // the server sees a client go only when the body was read
		content, _ := io.ReadAll(body)
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(content)))
		w.Proxy.Pass(rw, r)
	})
	w.Proxy.Requests()
	w.Must(w.Proxy.Await(w.Ctx, 1, func(vaulttest.Request) bool { return true }))
	for range 5 {
		w.Blank("prod")
		w.OnDisk("prod", secrets["prod"])
	}
	_, second := w.NewSecret("prod")
	within(w, patience, "version 2 is applied", func() bool {
		s, err := w.Asker().Status(w.Ctx)
		return err == nil && world.One(s, "prod").AppliedVersion == 2
	})
	if !*full {
		w.Proxy.Forward()
		w.InSync(2)
		return
	}
	// Slower than the client waits: given up, and said.
	letGo := w.Proxy.Hang()
	within(w, 3*time.Minute, "the poll is given up", func() bool {
		s, err := w.Asker().Status(w.Ctx)
		return err == nil && strings.Contains(world.One(s, "prod").LastError, "no answer in time")
	})
	w.Blank("prod")
	w.OnDisk("prod", second)
	w.Proxy.Forward()
	letGo()
	w.Signal(syscall.SIGUSR1)
	within(w, patience, "it is in sync again", func() bool { // a poll under way is as slow as before
		s, err := w.Asker().Status(w.Ctx)
		return err == nil && s.Is("in_sync")
	})
}

// keepsAndGuards demands that the applied credential is on disk, and put back when somebody empties it.
func keepsAndGuards(w *world.World, secret string) {
	w.T.Helper()
	w.Holds("prod", secret)
	w.Blank("prod")
	w.OnDisk("prod", secret)
	if s, err := w.Asker().Status(w.Ctx); err != nil || world.One(s, "prod").State == "in_sync" {
		w.T.Errorf("in the midst of it: %+v, %v", s, err)
	}
}

// within is World.Eventually with another patience.
func within(w *world.World, patience time.Duration, what string, holds func() bool) {
	w.T.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if w.Ctx.Err() != nil || time.Now().After(deadline) {
			w.T.Fatalf("in vain: %s\n%s", what, w.Log())
		}
	}
}

func firstOf(texts ...string) string {
	return texts[slices.IndexFunc(texts, func(text string) bool { return text != "" })]
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func retryAfter(status int, after string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		answer(status, `{"errors":[]}`)(w, r)
	}
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

func redirectToSelf(w http.ResponseWriter, r *http.Request) {
	redirect("http://"+r.Host+r.URL.RequestURI())(w, r)
}

// hangUp sends bytes that need be no answer, and closes the connection.
func hangUp(bytes string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err) // the proxy speaks HTTP/1.1
		}
		io.WriteString(conn, bytes)
		conn.Close()
	}
}

// cut promises a longer body than it sends.
func cut(body string) http.HandlerFunc {
	return hangUp(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body)+1, body))
}

func cutChunk(body string) http.HandlerFunc {
	return hangUp(fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s", len(body)+100, body))
}

// burst answers with one status after the other, and then hands on.
func burst(w *world.World, statuses ...int) http.HandlerFunc {
	next := make(chan int, len(statuses))
	for _, status := range statuses {
		next <- status
	}
	return func(rw http.ResponseWriter, r *http.Request) {
		select {
		case status := <-next:
			answer(status, `{"errors":["internal error"]}`)(rw, r)
		default:
			w.Proxy.Pass(rw, r)
		}
	}
}
