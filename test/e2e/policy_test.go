package e2e_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// What docs/install.md tells a security team to type is what is tested here: the policy is cut out of it, and its commands are carried out
// as requests, with the names of this test's own mounts in place of those in the manual.

// manual is the part of the manual that is typed at Vault.
type manual struct {
	text   string // of the manual, with the names of a world
	policy string
	lines  []string // of the policy
	role   string
}

// readManual reads docs/install.md for a world.
func readManual(w *world.World) *manual {
	w.T.Helper()
	text, err := os.ReadFile("../../docs/install.md")
	w.Must(err)
	unique := strings.ToLower(rand.Text()[:10])
	m := &manual{role: "web1-" + unique}
	m.text = strings.NewReplacer(
		"secret/data/campaign/prod/oauth", w.Vault.Mount+"/data/"+w.SecretPath("prod"),
		"secret/metadata/campaign/prod/oauth", w.Vault.Mount+"/metadata/"+w.SecretPath("prod"),
		"auth/approle/", "auth/"+w.Vault.AuthMount+"/",
		"campaign-prod", "prod-"+unique, "campaign-web1", m.role,
	).Replace(string(text))
	_, rest, found := strings.Cut(m.text, "vault policy write prod-"+unique+" - <<'EOF'\n")
	m.policy, _, _ = strings.Cut(rest, "EOF\n")
	for line := range strings.Lines(m.policy) {
		if strings.HasPrefix(line, "path ") {
			m.lines = append(m.lines, line)
		}
	}
	if !found || len(m.lines) < 2 {
		w.T.Fatalf("there is no policy in docs/install.md:\n%s", m.policy)
	}
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, "sys/policies/acl/prod-"+unique, map[string]any{"policy": m.policy}, nil))
	return m
}

// command returns the arguments of the command of the manual that begins so: one, or the same one several times.
func (m *manual) command(t *testing.T, start string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(m.text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), start); ok {
			words := strings.Fields(strings.TrimRight(rest, "|\n"))
			if found != nil && !slices.Equal(found, words) {
				t.Fatalf("docs/install.md says %q with %q and with %q", start, found, words)
			}
			found = words
		}
	}
	if found == nil {
		t.Fatalf("docs/install.md does not say %q", start)
	}
	return found
}

// write is `vault write`: the arguments are a path and fields. Vault only warns of a field that it does not know.
func (m *manual) write(w *world.World, args []string, also map[string]any) (data map[string]any) {
	w.T.Helper()
	body := map[string]any{}
	for _, field := range args[1:] {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			w.T.Fatalf("%q is no field", field)
		}
		body[name] = value
	}
	for name, value := range also {
		body[name] = value
	}
	var answer struct {
		Data     map[string]any
		Warnings []string
	}
	err := w.Vault.Call(w.Ctx, http.MethodPost, args[0], body, &answer)
	if err != nil && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "end of JSON") { // 204: nothing to decode
		w.T.Fatal(err)
	}
	if len(answer.Warnings) > 0 {
		w.T.Errorf("vault write %v: %v", args, answer.Warnings)
	}
	return answer.Data
}

// logsIn makes the manual's role and has the daemon log in with it.
func (m *manual) logsIn(w *world.World, also map[string]any) {
	w.T.Helper()
	role := m.command(w.T, "vault write auth/"+w.Vault.AuthMount+"/role/"+m.role+" ")
	m.write(w, append([]string{"auth/" + w.Vault.AuthMount + "/role/" + m.role}, role...), also)
	read := m.command(w.T, "vault read -field=role_id ")
	var roleID struct {
		Data struct {
			RoleID string `json:"role_id"`
		}
	}
	w.Must(w.Vault.Call(w.Ctx, http.MethodGet, read[0], nil, &roleID))
	secretID := m.write(w, m.command(w.T, "vault write -f -field=secret_id "), nil)["secret_id"].(string)
	w.Secrets = append(w.Secrets, secretID)
	w.Must(os.WriteFile(w.SecretID, []byte(secretID+"\n"), 0o600))
	rewrite(w, w.RoleID, roleID.Data.RoleID)
}

// setPolicy replaces the policy.
func (m *manual) setPolicy(w *world.World, policy string) {
	w.T.Helper()
	name := regexp.MustCompile(`token_policies=(\S+)`).FindStringSubmatch(m.text)[1]
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, "sys/policies/acl/"+name, map[string]any{"policy": policy}, nil))
}

// tokens counts the live tokens of the manual's role.
func (m *manual) tokens(w *world.World) (n int) {
	w.T.Helper()
	w.Eventually("Vault lists the tokens", func() bool {
		accessors, err := w.Vault.TokensOf(w.Ctx, m.role)
		n = len(accessors)
		return err == nil
	})
	return n
}

const (
	notRevoked = "token not revoked, it ends by itself"
	endsSoon   = "the secret-id ends soon"
)

// With exactly the manual's policy a rotation goes through, nothing is complained of, and the token is revoked at the end. Without Vault's
// policy "default" only the last needs a line more.
func TestPolicy(t *testing.T) {
	t.Parallel()
	const otherContainer = "of another container"
	const revokeSelf = `path "auth/token/revoke-self" { capabilities = ["update"] }`
	for _, c := range []struct {
		name       string
		role       map[string]any
		also       string
		leftBehind bool
	}{
		{"as it is", nil, "", false},
		{"without default", map[string]any{"token_no_default_policy": true}, "", true},
		{"without default, but to revoke itself", map[string]any{"token_no_default_policy": true}, revokeSelf, false},
		{otherContainer, nil, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{})
			m := readManual(w)
			if c.name == otherContainer { // whose operator wrote it anew, by the same page
				m.policy = strings.ReplaceAll(m.policy, m.role, "another-role")
			}
			m.setPolicy(w, m.policy+c.also)
			m.logsIn(w, c.role)
			w.NewSecret("prod")
			w.StartDaemon()
			w.InSync(1)
			_, second := w.NewSecret("prod")
			w.InSync(2)
			w.Holds("prod", second)
			w.Idle(w.SecretPath("prod"))
			if n := m.tokens(w); n != 1 {
				t.Errorf("%d tokens", n)
			}
			w.Stop()
			if strings.Contains(w.Log(), "the secret-id's end is not known") {
				t.Errorf("the look-up is not allowed:\n%s", w.Log())
			}
			left := m.tokens(w) > 0
			told := strings.Contains(w.Log(), notRevoked)
			if left != c.leftBehind || told != c.leftBehind {
				t.Errorf("the token is left behind: %v, and that is told: %v\n%s", left, told, w.Log())
			}
			if told {
				world.Says(t, w.Log(), "auth/token/revoke-self")
			}
			for line := range strings.Lines(w.Log()) {
				if (strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")) && !strings.Contains(line, notRevoked) {
					t.Errorf("it complains: %s", line)
				}
			}
		})
	}
}

// Each line of the manual's policy is needed: without it, or with another capability, something definite is worse.
func TestPolicyLineByLine(t *testing.T) {
	t.Parallel()
	missed := map[string]func(w *world.World){
		"/data/": func(w *world.World) {
			w.Is("prod", "degraded/vault_denied", "permission denied", "/data/"+w.SecretPath("prod"), "give the role a policy")
			w.Ran(0, "start", "set")
		},
		"/metadata/": func(w *world.World) {
			w.InSync(1)
			world.Says(w.T, w.Log(), `level=WARN msg="the policy forbids the metadata, so every poll reads the secret itself"`)
			w.Proxy.Requests()
			w.Must(w.Proxy.Await(w.Ctx, 2, vaulttest.Request.DataRead))
		},
		"/secret-id/lookup": func(w *world.World) {
			w.InSync(1)
			w.Eventually("the look-up is refused", func() bool { return strings.Contains(w.Log(), "the secret-id's end is not known") })
			if strings.Contains(w.Running.Log(), endsSoon) {
				w.T.Errorf("it knows when the secret-id ends:\n%s", w.Log())
			}
		},
	}
	w := world.New(t, container.Options{Programs: world.Plain(), Campaign: "first_apply: now"})
	m := readManual(w)
	m.logsIn(w, map[string]any{"secret_id_ttl": "24h"})
	w.NewSecret("prod")
	for i, line := range m.lines {
		what := ""
		for part := range missed {
			if strings.Contains(line, part) {
				what = part
			}
		}
		if what == "" {
			t.Errorf("nobody knows what this line of the manual's policy is for: %s", line)
			continue
		}
		less := strings.Replace(m.policy, line, "", 1)
		other := strings.Replace(m.policy, line, regexp.MustCompile(`\[.*\]`).ReplaceAllString(line, `["list"]`), 1)
		for name, policy := range map[string]string{"without": less, "with another capability": other} {
			t.Run(fmt.Sprintf("line %d %s", i+1, name), func(t *testing.T) {
				w.In(t)
				m.setPolicy(w, policy)
				w.StartDaemon()
				missed[what](w)
				w.Stop()
				w.Must(os.RemoveAll(w.StateDir()))
			})
			w.In(t)
		}
	}
	// And no line gives more than what the daemon asks for.
	m.setPolicy(w, m.policy)
	w.StartDaemon()
	w.Eventually("it warns of the secret-id's end", func() bool { return strings.Contains(w.Running.Log(), endsSoon) })
	w.Stop()
	token, err := w.Vault.NewToken(w.Ctx, m.policy, 0)
	w.Must(err)
	w.Secrets = append(w.Secrets, token)
	own, other := "/data/"+w.SecretPath("prod"), "/data/"+w.SecretPath("stage")
	for _, c := range []struct {
		method, path string
		allowed      bool
	}{
		{http.MethodGet, own, true},
		{http.MethodGet, strings.Replace(own, "/data/", "/metadata/", 1), true},
		{http.MethodPost, own, false},
		{http.MethodDelete, own, false},
		{"LIST", "/metadata/", false},
		{http.MethodGet, other, false},
	} {
		request, err := http.NewRequestWithContext(w.Ctx, c.method, w.Vault.Address+"/v1/"+w.Vault.Mount+c.path, nil)
		w.Must(err)
		request.Header.Set("X-Vault-Token", token)
		response, err := http.DefaultClient.Do(request)
		w.Must(err)
		response.Body.Close()
		if allowed := response.StatusCode == http.StatusOK; allowed != c.allowed {
			t.Errorf("%s %s: status %d", c.method, c.path, response.StatusCode)
		}
	}
}
