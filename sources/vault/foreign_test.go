package vault_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
)

// page is what a proxy answers; it repeats the request.
func (l *lab) page() string {
	return "<html><head><title>Bad Request</title><style>b { color: red }</style></head><body>nginx: " +
		strings.Join(l.Hidden, "<br>") + " hvs.CanaryCanaryCanary</body></html>"
}

// Only Vault's own words for a wrong role-id or secret-id are a refusal. Any other answer to a login is tried again, also by
// the next start. It may have come in the place of a refusal, which Vault counts: so it is noted, but where Vault itself
// gives another reason.
func TestLoginIsRefusedByVaultsWordsOnly(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	for name, c := range map[string]struct {
		status      int
		body, words string
		unjudged    bool
	}{
		"page":                 {400, l.page(), "not Vault", false},
		"no words":             {400, "", "https or http", false},
		"JSON of a gateway":    {400, `{"message":"no healthy upstream","request_id":"77"}`, "not Vault", false},
		"JSON:API":             {400, `{"errors":[{"title":"invalid role or secret ID"}]}`, "not Vault", false},
		"no errors":            {400, `{"errors":[]}`, "https or http", false},
		"a list":               {400, `["invalid role or secret ID"]`, "not Vault", false},
		"other words":          {400, `{"errors":["failed to parse JSON input: invalid secret id"]}`, "failed to parse JSON", true},
		"from elsewhere":       {400, `{"errors":["source address \"10.1.2.3\" unauthorized through CIDR restrictions on the secret ID"]}`, "unauthorized", true},
		"missing":              {400, `{"errors":["missing secret_id"]}`, "missing secret_id", true},
		"page with 403":        {403, l.page(), "not Vault", false},
		"success of a gateway": {200, `{"message":"invalid role or secret ID"}`, "not Vault's", false},
		"cut off":              {200, `{"auth":`, "not Vault's", false},
		"page with 503":        {503, l.page(), "not Vault", false},
		"sealed":               {503, `{"errors":["Vault is sealed"]}`, "unseal it", true},
		"throttled":            {429, `{"errors":["request path rate limit quota exceeded"]}`, "quota", true},
		"no leader":            {500, `{"errors":["local node not active but active cluster node not found"]}`, "electing", true},
		"no such mount":        {404, `{"errors":["no handler for route"]}`, "no handler", true},
	} {
		t.Run(name, func(t *testing.T) {
			l.Proxy.AnswerBody("/login", c.status, c.body)
			v := l.Vault()
			err := l.MustFail(l.KV(v), c.words, "next login not before")
			for _, verdict := range []string{"was refused", "locked", "nginx"} {
				if strings.Contains(err.Error(), verdict) {
					t.Errorf("it says %q: %v", verdict, err)
				}
			}
			if _, err := os.Stat(filepath.Join(l.Config.StateDir, "refused-secret-id.json")); (err != nil) != c.unjudged {
				t.Errorf("noted: %v", err)
			}
			if l.Proxy.Requests(); c.unjudged {
				for range 5 {
					l.MustFail(l.KV(l.Vault()), c.words)
				}
			} else {
				l.MustFail(l.KV(l.Vault()), c.words)
				for range 4 {
					v := l.Vault()
					v.RetryRefused()
					l.MustFail(l.KV(v), "five refused ones lock the role", "next login not before")
				}
			}
			if logins, want := l.Logins(), map[bool]int{true: 5, false: 1}[c.unjudged]; logins != want {
				t.Errorf("%d more logins, want %d", logins, want)
			}
			l.Proxy.Forward()
			os.Remove(filepath.Join(l.Config.StateDir, "refused-secret-id.json"))
			l.MustPoll(l.KV(l.Vault()), always)
			if err := os.RemoveAll(l.Config.StateDir); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(l.Config.StateDir, 0o700); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The words of every Vault, and of OpenBao, for a role-id or secret-id that it does not know.
func TestEveryVaultsWordsForAWrongSecretID(t *testing.T) {
	for since, words := range map[string]string{
		"1.13 and OpenBao": "invalid role or secret ID",
		"1.9":              "invalid secret id",
		"0.11":             "invalid role ID",
		"0.10":             `failed to validate credentials: invalid secret_id "%s"`,
		"0.10 role":        `failed to validate credentials: invalid role_id "x"`,
		"0.9":              `failed to validate SecretID: failed to find secondary index for role_id "x"` + "\n",
		"0.8":              `failed to validate SecretID: invalid secret_id "%s"`,
		"0.6":              "failed to validate SecretID: invalid secret_id: %s\n",
		"role is gone":     `failed to validate credentials: role "x" referred by the role_id "y" does not exist anymore`,
		"role is gone too": `failed to validate SecretID: role x referred by the SecretID does not exist`,
		"used up":          `invalid secret_id "%s"`,
	} {
		t.Run(since, func(t *testing.T) {
			l := newLab(t)
			l.Server.MustWrite(path, oauth())
			l.Proxy.Answer("/login", http.StatusBadRequest, strings.Replace(words, "%s", l.Hidden[1], 1))
			for range 3 {
				l.MustFail(l.KV(l.Vault()), "was refused", l.Config.Auth.SecretIDFile)
			}
			if logins := l.Logins(); logins != 1 {
				t.Errorf("%d logins, want 1", logins)
			}
		})
	}
}

// That a wrapping token is spent is for Vault to say, in its own words.
func TestWrappingTokenIsSpentByVaultsWordsOnly(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	for name, c := range map[string]struct {
		part        string
		status      int
		body, words string
	}{
		"page":                     {"/wrapping/", 400, l.page(), "not Vault"},
		"JSON of a gateway":        {"/wrapping/", 400, `{"message":"no healthy upstream"}`, "not Vault"},
		"other words":              {"/wrapping/", 400, `{"errors":["failed to parse JSON input"]}`, "failed to parse"},
		"yes of a gateway":         {"/wrapping/", 200, `{"message":"ok"}`, "not Vault's"},
		"nothing":                  {"/wrapping/", 204, ``, "not Vault's"},
		"page at the unwrapping":   {"/unwrap", 400, l.page(), "not Vault"},
		"404 at the unwrapping":    {"/unwrap", 404, ``, "404"},
		"yes at the unwrapping":    {"/unwrap", 200, `{"message":"ok"}`, "not Vault's"},
		"nothing at unwrapping it": {"/unwrap", 204, ``, "not Vault's"},
	} {
		t.Run(name, func(t *testing.T) {
			l.Wrap(time.Hour)
			l.Proxy.AnswerBody(c.part, c.status, c.body)
			v := l.Vault()
			kv := l.KV(v)
			err := l.MustFail(kv, c.words, "next login not before")
			for _, verdict := range []string{"spent", "somebody", "put a new"} {
				if strings.Contains(err.Error(), verdict) {
					t.Errorf("it says %q: %v", verdict, err)
				}
			}
			l.Proxy.Forward()
			v.ResetBackoff()
			l.MustPoll(kv, always)
			l.Config.StateDir = l.T.TempDir()
		})
	}
}

// What stands before Vault cannot say that there is no secret, nor that our token or the policy is at fault.
func TestForeignAnswersToAReadAreNoVerdict(t *testing.T) {
	l := newLab(t)
	l.Server.MustWrite(path, oauth())
	v := l.Vault()
	l.MustPoll(l.KV(v), always)
	l.Proxy.Requests()
	for _, kv := range []source{l.KV(v), v.KV(l.Server.Mount, path, 1)} {
		for _, status := range []int{http.StatusForbidden, http.StatusNotFound} {
			for _, body := range []string{l.page(), `{"message":"nginx","request_id":"7"}`} {
				l.Proxy.AnswerBody("/v1/"+l.Server.Mount, status, body)
				err := l.MustFail(kv, "what answers is not Vault", "vault.address")
				if strings.Contains(err.Error(), "nginx") {
					t.Errorf("it may hold what was to be read, and is quoted: %v", err)
				}
				var refusal *credential.Refusal
				if errors.As(err, &refusal) || strings.Contains(err.Error(), "give the role") {
					t.Errorf("%d is taken for Vault's: %v", status, err)
				}
				if logins := l.Logins(); logins != 0 {
					t.Errorf("%d logins for a %d", logins, status)
				}
				l.Proxy.Forward()
			}
		}
	}
	// The metadata are not forbidden, though a page has said so.
	kv := l.KV(v)
	l.Proxy.AnswerBody("/metadata/", http.StatusForbidden, l.page())
	l.MustFail(kv, "what answers is not Vault")
	l.Proxy.Forward()
	l.MustPoll(kv, never)
	if strings.Contains(l.Log.String(), "forbids the metadata") {
		t.Errorf("taken for the policy: %s", l.Log)
	}
}
