//go:build systemd

package systemd

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/pages"
	"campaign-credsync/test/vaulttest"
)

// fleet is three Campaign hosts, one Vault, and the administrator of both.
type fleet struct {
	*admin
	hosts   []*host
	vault   *vaulttest.Server
	proxy   *vaulttest.Proxy
	wrapped *wrappings
	deb     string
	options []string // of each run
	secrets []string // of the credential
	before  [][]byte // each host's instance file
}

// names are the ssh targets' hosts, in the order of the inventory.
var names = []string{"web1", "web2", "web3.example.com"}

// uuid is the form of a secret-id.
var uuid = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

const inventory = "# first the front\nweb1 prod campaign/prod/oauth\nadmin@web2 prod campaign/prod/oauth # as another user\n\nweb3.example.com prod campaign/prod/oauth\n"

// TestRollout installs on three hosts at once: plan, install over a failure, adopt, a rotation, rollback.
func TestRollout(t *testing.T) {
	t.Setenv("VAULT_ADDR", "")
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("VAULT_NAMESPACE", "")
	requireTools(t)
	f := newFleet(t)
	stop := arguments()
	for _, part := range []struct {
		name string
		test func(*testing.T, *fleet)
	}{
		{"wrong inventory", testWrongInventory},
		{"token without permission", testWithoutPermission},
		{"plan", testPlan},
		{"a host that is down", testHostDown},
		{"the rest", testInstallRest},
		{"again", testInstallAgain},
		{"as the page says", testPage},
		{"adopt", testAdopt},
		{"rotation", testRotationOfAll},
		{"another's configuration", testAnothersConfiguration},
		{"secret-id refused", testRefusedSecretID},
		{"a host that hangs", testHostHangs},
		{"a failure that stays", testFailureStays},
		{"an answer of Vault that is cut off", testAnswerCutOff},
		{"rollback that was cut off", testRollbackCutOff},
		{"installation that was cut off", testInstallCutOff},
		{"rollback", testRollback},
		{"other packages", testOtherPackages},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(t, f) }) {
			stop()
			t.FailNow() // each begins where the one before ended
		}
	}
	f.showsNothing(t, stop())
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{vault: vaulttest.Start(t), wrapped: &wrappings{}, deb: filepath.Join(buildPackage(t, repository(t), "1.0.0", "deb rpm"), "campaign-credsync_1.0.0-1_"+runtime.GOARCH+".deb")}
	authority := vaulttest.MustAuthority(t)
	pair, _, _ := authority.MustIssue(t, "127.0.0.1")
	f.proxy = f.vault.ProxyTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}})
	f.recordWrappings()
	f.admin = newAdmin(t, f.proxy.Address, authority.File, f.vault.MustToken(documentedPolicy(t, f.vault.AuthMount), time.Hour))
	f.options = []string{"--package", f.deb, "--mount", f.vault.Mount, "--auth-mount", f.vault.AuthMount}
	f.write(t, "hosts", inventory)

	standin, rootfs := buildStandin(t), rootFileSystem(t, "openssh-server", "sudo", "rpm")
	secret := f.rotate(t)
	for n := range 3 {
		h := bootHost(t, f.vault, standin, rootfs)
		f.hosts = append(f.hosts, h)
		f.reaches(t, names[n], []string{"root", "admin", "root"}[n], h)
		// What somebody set by hand, as Adobe says.
		c := container.Credential(secret)
		h.run(t, "runuser", "-u", "neolane", "--", "sh", "-c", `cd "$0" && . ./env.sh && bin/nlserver config -instance:prod "$1"`, campaignHome,
			fmt.Sprintf("-setimsoauth:%s/%s/%s/%s", c["ims_org_id"], c["client_id"], c["technical_account_id"], c["client_secret"]))
		f.before = append(f.before, h.document(t))
	}
	return f
}

// recordWrappings has the proxy keep the wrapping tokens that Vault answers.
func (f *fleet) recordWrappings() {
	f.proxy.Serve("/secret-id", func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		f.proxy.Pass(answer, r)
		f.wrapped.record(answer.Body.Bytes())
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
	})
}

// documentedPolicy is the policy for the rollout's token in docs/rollout.md.
func documentedPolicy(t *testing.T, authMount string) string {
	text, err := os.ReadFile(filepath.Join(repository(t), "docs/rollout.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```hcl\n")
	policy, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/rollout.md has no policy")
	}
	return strings.ReplaceAll(policy, "auth/approle/", "auth/"+authMount+"/")
}

func (f *fleet) rotate(t *testing.T) (secret string) {
	t.Helper()
	_, secret = (&host{vault: f.vault}).rotate(t)
	f.secrets = append(f.secrets, secret)
	return secret
}

// do runs the rollout for the inventory and wants this exit status.
func (f *fleet) do(t *testing.T, want int, verb string, more ...string) (said string) {
	t.Helper()
	f.proxy.Requests()
	return f.rollout(t, want, append(append([]string{verb}, f.options...), append([]string{"hosts"}, more...)...)...)
}

// unchanged fails the test where an instance's file is not what it was before the rollout.
func (f *fleet) unchanged(t *testing.T) {
	t.Helper()
	for n, h := range f.hosts {
		if !bytes.Equal(h.document(t), f.before[n]) {
			t.Errorf("the instance's file of web%d has changed", n+1)
		}
	}
}

// isInstalled fails the test unless it is on exactly these hosts, with a role and a policy for each.
func (f *fleet) isInstalled(t *testing.T, want ...bool) {
	t.Helper()
	for n, h := range f.hosts {
		for _, path := range []string{"/usr/bin/campaign-credsync", configFile, secretIDFile, stateDir} {
			if _, err := os.Lstat(h.path(path)); (err == nil) != want[n] {
				t.Errorf("web%d has %s: %t, want %t", n+1, path, err == nil, want[n])
			}
		}
		role := "campaign-" + names[n]
		for _, path := range []string{"auth/" + f.vault.AuthMount + "/role/" + role, "sys/policies/acl/" + role} {
			if err := f.vault.Call(t.Context(), "GET", path, nil, nil); (err == nil) != want[n] {
				t.Errorf("Vault has %s: %v, want it there: %t", path, err, want[n])
			}
		}
	}
}

// state is that of the daemon on a host.
func (h *host) state(t *testing.T) container.InstanceStatus {
	t.Helper()
	var status container.Status
	o := h.try(t, "campaign-credsync", "status", "--json")
	if err := json.Unmarshal([]byte(o.stdout), &status); err != nil || len(status.Instances) != 1 {
		t.Fatalf("%v: %v", err, o)
	}
	return status.Instances[0]
}

func testWrongInventory(t *testing.T, f *fleet) {
	f.write(t, "wrong", "web1 prod campaign/prod/oauth\nweb2 prod\n-oProxyCommand=x prod a\nweb3 ../prod a\n\nweb4 prod a/../b\nweb5 prod a b\nweb6 prod data/a\nx@web1 prod a\nweb7 prod a*\r\n")
	said := f.rollout(t, 2, append(append([]string{"install"}, f.options...), "wrong")...)
	for line, bad := range map[int]bool{1: false, 2: true, 3: true, 4: true, 5: false, 6: true, 7: true, 8: true, 9: true, 10: true} {
		if strings.Contains(said, fmt.Sprintf("wrong:%d: ", line)) != bad {
			t.Errorf("line %d is reported: %t, want %t:\n%s", line, !bad, bad, said)
		}
	}
	says(t, said, "wrong:9: the host web1 is in line 1, too")
	f.write(t, "wrong", "# nobody\n")
	says(t, f.rollout(t, 2, append(append([]string{"install"}, f.options...), "wrong")...), "has no hosts")
	says(t, f.do(t, 2, "install", "web9"), "has no host web9")
	f.write(t, "now.yaml", "first_apply: now # and not first_apply: hold\n")
	says(t, f.rollout(t, 2, append(append([]string{"install", "--config", "now.yaml"}, f.options...), "hosts")...), "has no first_apply: hold")
	f.isInstalled(t, false, false, false)
}

func testWithoutPermission(t *testing.T, f *fleet) {
	able := f.token
	defer func() { f.token = able }()
	policy := documentedPolicy(t, f.vault.AuthMount)
	f.token = f.vault.MustToken(strings.Replace(policy, `role/+/secret-id" `, `role/+/other" `, 1), time.Hour)
	said := f.do(t, 1, "install")
	says(t, said, "auth/"+f.vault.AuthMount+"/role/campaign-web2/secret-id: update, list")
	if strings.Contains(said, "/role-id") || strings.Contains(said, "policies") {
		t.Errorf("it has more than is missing: %s", said)
	}
	f.token = "hvs.nobody"
	says(t, f.do(t, 1, "install"), "Vault answers 403")
	f.isInstalled(t, false, false, false)
}

func testPlan(t *testing.T, f *fleet) {
	said := f.do(t, 3, "plan")
	for _, want := range []string{"web1: would create policy campaign-web1", "admin@web2: would install campaign-credsync_1.0.0-1_" + runtime.GOARCH + ".deb",
		"web3.example.com: would issue a secret-id", "web3.example.com: would check the host, start the daemon"} {
		says(t, said, want)
	}
	if done := writes(f.proxy.Requests()); len(done) > 0 {
		t.Errorf("plan changes Vault: %v", done)
	}
	f.isInstalled(t, false, false, false)
}

func testInstallRest(t *testing.T, f *fleet) {
	pid := f.hosts[0].show(t)["MainPID"]
	began := time.Now()
	said := f.do(t, 0, "install")
	t.Logf("two hosts guarded %s after the start of install:\n%s", time.Since(began).Round(100*time.Millisecond), said)
	for n, h := range f.hosts {
		if got := h.state(t); got.State != "held" || got.AppliedVersion != 0 {
			t.Errorf("web%d is %+v, want held", n+1, got)
		}
		if rights := h.rights(t, configFile) + " " + h.rights(t, secretIDFile); rights != "root:neolane 640 root:root 600" {
			t.Errorf("on web%d: %s", n+1, rights)
		}
		h.isUnit(t, "active", true)
	}
	says(t, said, "web1: held first_apply")
	says(t, said, "admin@web2: held first_apply")
	if now := f.hosts[0].show(t)["MainPID"]; now != pid {
		t.Errorf("the daemon of web1 was restarted: %s, %s", pid, now)
	}
	f.isInstalled(t, true, true, true)
	f.unchanged(t)
	says(t, f.rollout(t, 3, "verify", "hosts"), "web3.example.com: held first_apply")

	h := f.hosts[2]
	h.run(t, "sed", "-i", `s|="`+h.ciphertext(t)+`"|="@broken"|`, instanceFile)
	await(t, "the revert of an edit", patience, func() bool { return bytes.Equal(h.document(t), f.before[2]) })
}

func testInstallAgain(t *testing.T, f *fleet) {
	var before []string
	for _, h := range f.hosts {
		before = append(before, h.run(t, "stat", "--format=%n %i %z", configFile, secretIDFile, "/usr/bin/campaign-credsync")+h.show(t)["MainPID"])
	}
	began := time.Now()
	said := f.do(t, 0, "install")
	t.Logf("the second run takes %s", time.Since(began).Round(100*time.Millisecond))
	if done := writes(f.proxy.Requests()); len(done) > 0 {
		t.Errorf("it changes Vault: %v", done)
	}
	if want := "web1: held first_apply\nadmin@web2: held first_apply\nweb3.example.com: held first_apply\n"; said != want {
		t.Errorf("it prints %q, want %q", said, want)
	}
	for n, h := range f.hosts {
		if now := h.run(t, "stat", "--format=%n %i %z", configFile, secretIDFile, "/usr/bin/campaign-credsync") + h.show(t)["MainPID"]; now != before[n] {
			t.Errorf("web%d has changed: %s\n%s", n+1, before[n], now)
		}
	}
	f.do(t, 0, "plan")
}

// testPage runs the commands of docs/rollout.md, with the names that things have here.
func testPage(t *testing.T, f *fleet) {
	blocks, err := pages.Read(filepath.Join(repository(t), "docs"), "rollout.md")
	if err != nil {
		t.Fatal(err)
	}
	template, err := os.ReadFile(filepath.Join(repository(t), "packaging/rollout/config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "config.yaml", string(template))
	statuses := map[string]int{"plan": 0, "install": 0, "verify": 3}
	for _, b := range blocks {
		for _, command := range b.Commands() {
			words := strings.Fields(command)
			if b.Language != "sh" || words[0] == "export" {
				continue
			}
			want, known := statuses[words[1]]
			if words[0] != "rollout" || !known {
				t.Fatalf("%v: not run here: %s", b, command)
			}
			delete(statuses, words[1])
			for n, word := range words {
				if strings.HasSuffix(word, ".deb") {
					words[n] = f.deb
				}
			}
			f.rollout(t, want, append(append([]string{words[1]}, f.options[2:]...), words[2:]...)...)
		}
	}
	if len(statuses) > 0 {
		t.Errorf("the page does not say: %v", statuses)
	}
}

func testAdopt(t *testing.T, f *fleet) {
	f.rollout(t, 0, "adopt", "hosts", "web1")
	if got := f.hosts[1].state(t).State; got != "held" {
		t.Errorf("web2 is %s, and only web1 was named", got)
	}
	f.rollout(t, 0, append(append([]string{"install", "--adopt"}, f.options...), "hosts")...)
	says(t, f.rollout(t, 0, "verify", "hosts"), "admin@web2: in_sync version 1")
	f.unchanged(t)
}

func testRotationOfAll(t *testing.T, f *fleet) {
	secret := f.rotate(t)
	for n, h := range f.hosts {
		h.run(t, "systemctl", "kill", "--kill-whom=main", "--signal=USR1", unit) // polls now, not within 30 s
		h.awaitApplied(t, 2)
		if !h.holds(t, secret) {
			t.Errorf("web%d does not hold the new secret", n+1)
		}
		f.before[n] = h.document(t)
	}
	says(t, f.rollout(t, 0, "verify", "hosts"), "web3.example.com: in_sync version 2")
}

func testRollback(t *testing.T, f *fleet) {
	f.wrapped.tokens = append(f.wrapped.tokens, f.secretIDs(t)...)
	f.do(t, 0, "rollback")
	f.isInstalled(t, false, false, false)
	f.unchanged(t)
	for n, h := range f.hosts {
		h.isUnit(t, "inactive", false)
		if _, err := os.Lstat(h.path("/etc/campaign-credsync")); err == nil {
			t.Errorf("web%d has /etc/campaign-credsync", n+1)
		}
	}
	f.do(t, 0, "rollback")
	if done := writes(f.proxy.Requests()); len(done) > 0 {
		t.Errorf("a second rollback changes Vault: %v", done)
	}
}

// secretIDs are those that the daemons have unwrapped. Where neolane cannot seal they are in clear.
func (f *fleet) secretIDs(t *testing.T) (all []string) {
	t.Helper()
	for n, h := range f.hosts {
		kept := h.read(t, stateDir+"/secret-id.key")
		id := uuid.FindString(kept)
		if id == "" {
			t.Fatalf("web%d keeps no secret-id in clear", n+1)
		}
		all = append(all, id)
	}
	return all
}

// showsNothing demands that what must stay secret is in no output, argument or environment of a process, and no file of the administrator.
func (f *fleet) showsNothing(t *testing.T, arguments []byte) {
	record, err := os.ReadFile(f.record)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(record, []byte("X-Vault-Wrap-TTL")) {
		t.Error("the record of the administrator's processes does not have the request of a secret-id")
	}
	wrapped := f.wrapped.all()
	if len(wrapped) < 5+3 {
		t.Fatalf("only %d secret-ids and their wrapping tokens are known", len(wrapped))
	}
	for _, secret := range append(append(wrapped, f.secrets...), f.token) {
		for where, text := range map[string][]byte{"output": []byte(f.printed.String()), "arguments or environment": record, "arguments": arguments} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s… is in %s", secret[:4], where)
			}
		}
		filepath.Walk(f.home, func(path string, info os.FileInfo, err error) error {
			if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s… is in %s", secret[:4], path)
			}
			return nil
		})
	}
}
