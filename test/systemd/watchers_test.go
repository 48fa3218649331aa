//go:build systemd

package systemd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
)

const (
	httpSocket = "/run/campaign-credsync/http.sock"
	hookTold   = "/usr/local/neolane/told-to-the-hook"
	hook       = "/usr/local/bin/tell"
	// hookProgram keeps its environment, its arguments and what it is told.
	hookProgram = `#!/bin/sh
{ cat /proc/$$/environ /proc/$$/cmdline /proc/$PPID/cmdline; cat; } >>` + hookTold + "\n"
)

// tokens records the tokens that Vault gives at logins through a proxy.
type tokens struct {
	mu  sync.Mutex
	all []string
}

func (k *tokens) record(p *vaulttest.Proxy) {
	p.Serve("/login", func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		p.Pass(answer, r)
		var body struct {
			Auth struct {
				Token string `json:"client_token"`
			}
		}
		if json.Unmarshal(answer.Body.Bytes(), &body) == nil && body.Auth.Token != "" {
			k.mu.Lock()
			k.all = append(k.all, body.Auth.Token)
			k.mu.Unlock()
		}
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
	})
}

func (k *tokens) known() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string{}, k.all...)
}

// testWatchersSeeNoSecret looks at all that people and programs see who watch the daemon, while nlserver prints the secret and fails, while
// Vault has a malformed one, in sync, and after the daemon was killed by what makes other programs dump core: no secret, secret-id or
// token is there in any form. That the looks find what is there is shown by a decoy, which is no secret for the daemon.
func testWatchersSeeNoSecret(t *testing.T, h *host) {
	var k tokens
	proxy := h.vault.Proxy(t)
	k.record(proxy)
	h.write(t, hook, hookProgram, 0o755)
	h.configure(t, edited(t, h.config, h.vault.Address, proxy.Address,
		`listen: "" `, "listen: unix:"+httpSocket+" ", "exec: [] ", "exec: ["+hook+"] ", "level: info ", "level: debug "))
	defer func() {
		h.faults(t, "")
		h.configure(t, h.config)
		h.run(t, "rm", "-f", hook, hookTold, h.dropIn("crash.conf"))
		h.run(t, "systemctl", "daemon-reload")
		h.run(t, "systemctl", "restart", unit)
		h.awaitApplied(t, 1)
	}()
	h.run(t, "systemctl", "restart", unit)
	h.awaitApplied(t, 1)
	if len(k.known()) == 0 {
		t.Fatal("no login went through the proxy")
	}
	none := func(when string) {
		t.Helper()
		h.secretsAreNotIn(t, when, h.watched(t), append(k.known(), h.secrets...))
	}

	decoy := "decoy" + rand.Text()
	h.plant(t, decoy)
	h.isFound(t, decoy)

	h.faults(t, `{"print_secret": true, "fail": "before"}`)
	version, secret := h.rotate(t)
	h.awaitReason(t, "apply_failed")
	none("while nlserver prints the secret and fails")
	h.faults(t, `{"print_secret": true}`)
	h.operate(t, "sync")
	h.awaitApplied(t, version)
	if !h.holds(t, secret) {
		t.Error("the file does not hold the secret")
	}
	bad := "p8e-" + rand.Text() + "/" + rand.Text()
	h.secrets = append(h.secrets, bad)
	h.vault.MustWrite(container.SecretPath(instance), container.Credential(bad))
	h.operate(t, "sync")
	h.awaitReason(t, "secret_malformed")
	none("while Vault has a malformed secret")
	h.faults(t, "")
	version, _ = h.rotate(t)
	h.operate(t, "sync")
	h.awaitApplied(t, version)
	none("in sync")

	h.dumpsNoCore(t)
	none("after it was killed")
}

// operate runs a command as docs/commands.md says.
func (h *host) operate(t *testing.T, args ...string) outcome {
	t.Helper()
	return h.try(t, append([]string{"env", "CREDENTIALS_DIRECTORY=/run/credentials/" + unit, "campaign-credsync"}, args...)...)
}

// awaitReason waits for the reason for which the instance is not in sync.
func (h *host) awaitReason(t *testing.T, reason string) {
	t.Helper()
	await(t, "the reason "+reason, patience, func() bool {
		h.operate(t, "sync")
		return strings.Contains(h.try(t, "campaign-credsync", "status", "--json").stdout, `"reason":"`+reason+`"`)
	})
}

// sight is something that is seen of the daemon, and a text by which it is known for what it is taken for.
type sight struct{ place, text, known string }

// watched is all that is seen of the daemon.
func (h *host) watched(t *testing.T) []sight {
	t.Helper()
	pid := h.awaitUnit(t, "an active unit", h.active)["MainPID"]
	h.run(t, "journalctl", "--sync")
	seen := []sight{
		{"the journal with all fields", h.run(t, "journalctl", "--no-pager", "-o", "export"), "INSTANCE=" + instance},
		{"the daemon's environment", h.run(t, "cat", "/proc/"+pid+"/environ"), "CREDENTIALS_DIRECTORY="},
		{"the daemon's arguments", h.run(t, "cat", "/proc/"+pid+"/cmdline"), "campaign-credsync\x00run\x00"},
		{"systemctl status", h.try(t, "systemctl", "status", "--no-pager", "-l", "-n", "1000", unit).stdout, "campaign-credsync run"},
		{"systemctl show", h.run(t, "systemctl", "show", unit), "ExecReload"},
		{"the history's file", h.read(t, stateDir+"/history.jsonl"), `"event":"started"`},
		{"what the hook was given", h.told(t), "PATH="},
		{"what the hook was told", h.told(t), `"event":"started"`},
	}
	for path, known := range map[string]string{
		"/": "Campaign credentials", "/metrics": "campaign_credsync_instance_state{", "/healthz": "ok", "/readyz": "\n", "/style.css": "{", "/nowhere": "404",
	} {
		seen = append(seen, sight{path, h.asked(t, path), known})
	}
	for command, known := range map[string]string{
		"status": instance, "status --json": `"applied_version"`, "status --prometheus": "campaign_credsync_", "history": "applied", "history --json": `"event":"applied"`,
		"doctor": "login", "doctor --json": `"check"`, "diff": "", "validate --effective": "role_id", "sync --dry-run": "",
	} {
		seen = append(seen, sight{command, h.operate(t, strings.Fields(command)...).String(), known})
	}
	return seen
}

// told is what the hook keeps. It is run a moment after an event.
func (h *host) told(t *testing.T) (text string) {
	t.Helper()
	await(t, "the hook to be told", patience, func() bool {
		text = h.try(t, "cat", hookTold).stdout
		return strings.Contains(text, `"event":`)
	})
	return text
}

// asked is the answer to a request at the daemon's web server, with its head.
func (h *host) asked(t *testing.T, path string) string {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.path(httpSocket))
		},
		DisableKeepAlives: true,
	}}
	answer, err := client.Get("http://daemon" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %v\n%s", answer.Status, answer.Header, body)
}

func (h *host) secretsAreNotIn(t *testing.T, when string, seen []sight, secrets []string) {
	t.Helper()
	size, look := 0, lookFor(secrets...)
	for _, s := range seen {
		size += len(s.text)
		if !strings.Contains(s.text, s.known) {
			t.Errorf("%s, %s has no %q: %s", when, s.place, s.known, tail(s.text, 20))
		}
		for _, i := range look.in(s.text) {
			t.Errorf("%s, secret %d of %d is in %s", when, i+1, len(secrets), s.place)
		}
	}
	t.Logf("%s: %d secrets looked for in %d places, %d bytes", when, len(secrets), len(seen), size)
}

// plant puts a decoy, which nothing redacts, where an operator's text goes, and in other forms into the journal.
func (h *host) plant(t *testing.T, decoy string) {
	t.Helper()
	if o := h.operate(t, "pause", "--for", "1h", "--reason", decoy); o.status != 0 {
		t.Fatal(o)
	}
	for name, encode := range map[string]string{
		"base64": `base64 -w 0`, "hex": `od -An -v -tx1 | tr -d ' \n'`, "percent": `od -An -v -tx1 | tr -d '\n' | tr a-f A-F | tr ' ' %`,
	} {
		h.run(t, "sh", "-c", `printf '{"token":"x%s"}' "$0" | `+encode+` | systemd-cat -t decoy-`+name, decoy)
	}
}

// isFound demands that the decoy is found wherever it is, and ends the pause.
func (h *host) isFound(t *testing.T, decoy string) {
	t.Helper()
	await(t, "the hook to be told of the decoy", patience, func() bool { return strings.Contains(h.told(t), decoy) })
	found := map[string]bool{}
	for _, s := range h.watched(t) {
		found[s.place] = shows(s.text, decoy)
	}
	for _, place := range []string{"/", "status", "status --json", "history", "history --json", "the history's file", "the journal with all fields", "what the hook was told"} {
		if !found[place] {
			t.Errorf("the decoy is in %s, and is not found there", place)
		}
	}
	for _, name := range []string{"base64", "hex", "percent"} {
		if text := h.run(t, "journalctl", "-o", "export", "-t", "decoy-"+name); !shows(text, decoy) || strings.Contains(text, decoy) {
			t.Errorf("the decoy is in the journal as %s, and is not found there: %s", name, text)
		}
	}
	if o := h.operate(t, "resume"); o.status != 0 {
		t.Fatal(o)
	}
}

// dumpsNoCore kills the daemon by signals after which others dump core, also where Go is asked to have itself killed so, and where the limit
// of the unit was taken away: the kernel dumps none, and neolane cannot read what /proc has of the daemon. Another program in the same
// place dumps one.
func (h *host) dumpsNoCore(t *testing.T) {
	t.Helper()
	const cores = "/usr/local/neolane/cores"
	h.run(t, "install", "-d", "-o", "neolane", cores)
	defer h.run(t, "rm", "-r", cores)
	h.try(t, "systemd-run", "--wait", "--unit=dumps", "--uid=neolane", "--property=LimitCORE=infinity", "--working-directory="+cores, "sh", "-c", "kill -ABRT $$$$") // systemd makes $ of $$
	if said := h.run(t, "journalctl", "-u", "dumps"); !strings.Contains(said, "code=dumped") {
		cannot(t, "nothing dumps core on this machine: %s", said)
	}
	for _, c := range []struct{ name, settings string }{
		{"as packaged", ""},
		{"asked for by GOTRACEBACK", "Environment=GOTRACEBACK=crash\n"},
		{"asked for, and without the limit", "Environment=GOTRACEBACK=crash\nLimitCORE=infinity\n"},
	} {
		h.write(t, h.dropIn("crash.conf"), "[Service]\nRestartSec=100ms\nWorkingDirectory="+cores+"\n"+c.settings, 0o644)
		h.run(t, "systemctl", "daemon-reload")
		for _, signal := range []string{"ABRT", "SEGV"} {
			h.run(t, "systemctl", "restart", unit)
			h.run(t, "sh", "-c", "rm -f "+cores+"/*")
			pid := h.awaitApplied(t, 1)
			for _, file := range []string{"environ", "auxv"} {
				if o := h.try(t, "runuser", "-u", "neolane", "--", "cat", "/proc/"+pid+"/"+file); o.status == 0 {
					t.Errorf("neolane can read %s of the daemon", file)
				}
			}
			mark := h.journalEnd(t)
			h.run(t, "sh", "-c", "kill -"+signal+" "+pid)
			end := h.awaitJournal(t, mark, "Main process exited")
			t.Logf("%s, %s: %s", c.name, signal, end)
			if strings.Contains(end, "dumped") {
				t.Errorf("%s, SIG%s: a core was dumped", c.name, signal)
			}
			if left := h.run(t, "ls", "-A", cores); left != "" {
				t.Errorf("%s, SIG%s: left are %s", c.name, signal, left)
			}
			h.awaitUnit(t, "a restart", func(p map[string]string) bool { return h.active(p) && p["MainPID"] != pid })
		}
	}
	h.run(t, "rm", h.dropIn("crash.conf"))
	h.run(t, "systemctl", "daemon-reload")
}
