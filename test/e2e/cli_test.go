package e2e_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
)

// exits runs a command and demands its exit status and what it prints on either stream.
func (w *world) exits(status int, says string, args ...string) string {
	w.t.Helper()
	stdout, stderr, got := w.command(args...)
	if got != status || !strings.Contains(stdout+stderr, says) {
		w.t.Errorf("%v ended with %d, want %d and %q:\n%s%s", args, got, status, says, stdout, stderr)
	}
	return stdout
}

// The commands without a daemon, from the first apply on.
func TestCommandsWithoutDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{Settings: "log: {level: warn, format: text}"})
	w.exits(1, "no daemon answers", "status")
	w.exits(1, "no daemon answers", "status", "--json")

	before := w.snapshot()
	w.exits(1, "no secret at", "sync", "--dry-run")
	w.exits(3, "no secret at", "diff")
	_, secret := w.rotate("prod")
	w.exits(0, "would apply version 1", "sync", "--dry-run")
	w.exits(3, "version 1, which waits", "diff")
	if after := w.snapshot(); after != before {
		t.Errorf("something was written:\n%s\nbefore\n%s", after, before)
	}

	w.exits(0, "prod: in_sync, version 1 applied", "sync")
	w.holds("prod", secret)
	w.ran(1, "end", "reload")
	w.exits(0, "in sync, nothing to do", "sync", "--dry-run")
	if got := w.exits(0, "", "diff"); got != "" {
		t.Errorf("nothing differs, and diff says %q", got)
	}
	w.exits(0, "prod: in_sync", "sync")
	w.exits(0, "prod: in_sync", "sync", "--instance", "prod")
	w.exits(2, "nobody", "sync", "--instance", "nobody")
	w.exits(2, "nobody", "diff", "--instance", "nobody")
	w.ran(1, "end", "set")

	w.blank("prod")
	before = w.snapshot()
	w.exits(0, "would put back authIMSTAClientSecret", "sync", "--dry-run")
	w.exits(3, "authIMSTAClientSecret differs", "diff")
	if after := w.snapshot(); after != before {
		t.Errorf("something was written:\n%s\nbefore\n%s", after, before)
	}
	w.exits(0, "prod: in_sync", "sync")
	w.holds("prod", secret)

	w.write("prod", container.Credential(secret)) // the same credential again
	w.exits(0, "nothing to do", "sync", "--dry-run")
	w.exits(0, "version 2 applied", "sync")
	w.ran(1, "end", "set")

	// A difference that has no attribute of its own is told all the same.
	data := container.Credential(secret)
	data["ims_org_id"] = "0123456789ABCDEF01234568@AdobeOrg"
	w.write("prod", data)
	w.exits(0, "would apply version 3", "sync", "--dry-run")
	w.exits(3, "version 3", "diff")
	w.exits(0, "version 3 applied", "sync")
	w.ran(2, "end", "set")

	w.write("prod", map[string]any{"client_id": "x"})
	w.exits(3, "field ims_org_id", "diff")
	w.exits(1, "would keep what is applied", "sync", "--dry-run")
	w.exits(1, "blocked", "sync")
	w.rotate("prod")

	w.Proxy.Down()
	w.exits(1, "is Vault running", "diff")
	w.exits(1, "cannot tell", "sync", "--dry-run")
	w.exits(1, "is Vault running", "sync")
	w.must(w.Proxy.Up())

	w.faults(`{"fail": "before", "print_secret": true}`)
	w.exits(1, "exit status 1", "sync")
	w.faults(`{"reload_fail": true}`)
	w.exits(1, "activation_pending", "sync")
	w.exits(3, "activation waits: reload", "diff")
	w.faults("")
	w.exits(0, "prod: in_sync, version 5", "sync")

	document := w.read("prod")
	w.must(os.Remove(w.File("prod")))
	w.exits(1, "missing", "diff")
	w.exits(1, "missing", "sync", "--dry-run")
	w.exits(1, "missing", "sync")
	w.must(os.WriteFile(w.File("prod"), document, 0o640))
	if n := w.tokens(); n != 0 {
		t.Errorf("commands left %d tokens", n)
	}
}

func TestCommandsWithDaemon(t *testing.T) {
	t.Parallel()
	w, _ := started(t, container.Options{Settings: "watch: {poll: 1h}", Instances: []string{"a", "b"}})
	w.pass() // what there is to save has been
	_, second := w.rotate("a")
	before := w.snapshot()
	w.exits(0, "a: would apply version 2 (applied: 1)", "sync", "--dry-run")
	w.exits(3, "a: authIMSTAClientSecret changes with version 2", "diff")
	w.exits(0, "", "diff", "--instance", "b")
	if after := w.snapshot(); after != before {
		t.Errorf("something was written:\n%s\nbefore\n%s", after, before)
	}
	if got := w.exits(0, "b: in_sync", "sync", "--instance", "b"); strings.Contains(got, "a:") {
		t.Errorf("asked for b: %s", got)
	}
	w.ran(2, "end", "set")
	w.exits(0, "a: in_sync, version 2 applied", "sync", "--instance", "a")
	w.holds("a", second)
	w.exits(0, "in_sync", "status")
	w.rotate("b")
	w.Proxy.Down()
	w.exits(1, "degraded", "sync")
	w.exits(3, "degraded", "status")
	w.must(w.Proxy.Up())
	w.exits(0, "b: in_sync, version 2", "sync")
	w.stop()
	w.exits(1, "no daemon answers", "status")
}

// status --json has the documented keys and no other, and times in UTC.
func TestStatusDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{})
	w.start()
	check := func() {
		t.Helper()
		stdout, _, _ := w.command("status", "--json")
		var d struct {
			Instances []map[string]any `json:"instances"`
			Vault     map[string]any   `json:"vault"`
		}
		decoder := json.NewDecoder(strings.NewReader(stdout))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&d); err != nil || len(d.Instances) != 1 {
			t.Fatalf("%s: %v", stdout, err)
		}
		sameKeys(t, d.Instances[0], "name", "state", "wanted_version", "applied_version", "applied_at", "activated_at", "last_check",
			"drift_reverted_total", "last_error")
		sameKeys(t, d.Vault, "reachable", "token_expires_at", "last_poll")
		for _, values := range []map[string]any{d.Instances[0], d.Vault} {
			for key, value := range values {
				text, isText := value.(string)
				if !isText || !regexp.MustCompile(`_at$|^last_(check|poll)$`).MatchString(key) {
					continue
				}
				if at, err := time.Parse(time.RFC3339, text); err != nil || !strings.HasSuffix(text, "Z") || time.Since(at).Abs() > 1000*time.Hour {
					t.Errorf("%s is %q", key, text)
				}
			}
		}
	}
	w.is("prod", "blocked")
	check()
	w.rotate("prod")
	w.inSync(1)
	check()
	if stdout, _, status := w.command("status", "--json"); status != 0 || strings.Contains(stdout, "null") {
		t.Errorf("%d: %s", status, stdout)
	}
}

func sameKeys(t *testing.T, object map[string]any, want ...string) {
	t.Helper()
	got := slices.Sorted(maps.Keys(object))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("keys are %q, want %q", got, want)
	}
}

// status --watch prints again at each change and ends when it is interrupted.
func TestStatusWatch(t *testing.T) {
	t.Parallel()
	for _, asJSON := range []bool{false, true} {
		w, _ := started(t, container.Options{})
		args := []string{"--config", w.Config, "status", "--watch"}
		if asJSON {
			args = append(args, "--json")
		}
		watch := exec.Command(programs.Command, args...)
		r, pipe, err := os.Pipe()
		w.must(err)
		watch.Stdout = pipe
		w.must(watch.Start())
		pipe.Close()
		shown := make(chan string, 100)
		go func() {
			defer close(shown)
			buffer := make([]byte, 64<<10)
			for {
				n, err := r.Read(buffer)
				if err != nil {
					return
				}
				shown <- string(buffer[:n])
			}
		}()
		expect := func(what string) {
			t.Helper()
			timeout := time.After(patience)
			for all := ""; !strings.Contains(all, what); {
				select {
				case text := <-shown:
					all += text
				case <-timeout:
					t.Fatalf("it never showed %q: %s", what, all)
				}
			}
		}
		expect("in_sync")
		w.rotate("prod")
		w.Proxy.Down()
		expect("degraded")
		w.must(w.Proxy.Up())
		w.pass()
		expect("in_sync")
		w.must(watch.Process.Signal(syscall.SIGINT))
		if err := watch.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
		r.Close()
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, container.Options{})
	w.Proxy.Down() // it is offline
	stdout := w.exits(0, "poll: 1s", "validate")
	for _, secret := range append(w.secrets, w.RoleID) {
		if strings.Contains(stdout, secret) {
			t.Error("validate shows a secret or the role id")
		}
	}
	// What it prints is a configuration itself.
	again := w.path("again.yaml")
	w.must(os.WriteFile(again, []byte(stdout), 0o600))
	if out, err := exec.Command(programs.Command, "--config", again, "validate").CombinedOutput(); err != nil {
		t.Errorf("what validate prints is not valid: %v\n%s", err, out)
	}

	good, err := os.ReadFile(w.Config)
	w.must(err)
	for _, bad := range []string{
		"", "{", "instances: []\n", string(good) + "drift: {max_reverts: 0}\n", string(good) + "nonsense: 1\n",
		string(bytes.Replace(good, []byte("name: prod"), []byte("name: ../prod"), 1)),
	} {
		w.must(os.WriteFile(w.Config, []byte(bad), 0o600))
		for _, command := range []string{"run", "sync", "validate", "diff"} {
			w.exits(2, w.Config, command)
		}
	}
	w.must(os.Remove(w.Config))
	for _, command := range []string{"run", "sync", "validate", "diff", "status"} {
		w.exits(2, w.Config, command)
	}
	w.exits(2, "", "nonsense")
	w.exits(2, "", "run", "argument")
	w.exits(2, "", "status", "--nonsense")
}
