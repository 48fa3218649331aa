package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// rewrite changes the configuration file by its text, and nothing else.
func rewrite(w *world.World, old, new string) {
	w.T.Helper()
	text, err := os.ReadFile(w.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.Config, world.Replaced(w.T, text, old, new), 0o600))
}

// standing is what a reload must leave of an instance that it does not concern.
func standing(w *world.World, instance string) string {
	w.T.Helper()
	s, err := w.Asker().Status(w.Ctx)
	w.Must(err)
	return fmt.Sprintf("%+v", world.One(s, instance))
}

// refused sends SIGHUP and demands one line of log that says why the old configuration is kept.
func refused(w *world.World, says ...string) {
	w.T.Helper()
	const told = "configuration not reloaded, keeping the old one"
	before, after := strings.Count(w.Log(), told), 0
	w.Signal(syscall.SIGHUP)
	w.Eventually("it is refused", func() bool { after = strings.Count(w.Log(), told); return after > before })
	if after != before+1 {
		w.T.Errorf("it is told %d times", after-before)
	}
	last := w.Log()[strings.LastIndex(w.Log(), "level=ERROR msg=\""+told):]
	last, _, _ = strings.Cut(last, "\n")
	world.Says(w.T, last, says...)
}

// Instances come and go; those that stay are left as they are, and what is not kept any more may be kept by another daemon.
func TestReloadLeavesOtherInstancesAlone(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{Instances: []string{"stays", "goes"}})
	w.Blank("stays")
	w.Reverted("stays", 1)
	before := standing(w, "stays")

	_, secrets["comes"] = w.NewSecret("comes")
	w.Reconfigured(func(o *container.Options) { o.Instances = []string{"stays", "comes"} })
	w.HangUp()
	w.OneInSync("comes", 1)
	w.Ran(3, "end", "set")
	if after := standing(w, "stays"); after != before {
		t.Errorf("the status of the other was\n%s and is\n%s", before, after)
	}

	// Its claim is free.
	text, err := os.ReadFile(w.Config)
	w.Must(err)
	other := strings.NewReplacer(
		"state_dir: "+w.StateDir(), "state_dir: "+w.Path("state2"), "control.sock", "control2.sock", "name: comes", "name: goes",
		w.SecretPath("comes"), w.SecretPath("goes")).Replace(string(text))
	other = strings.Replace(other, fmt.Sprintf("  - {name: stays, mount: %s, path: %s}\n", w.Vault.Mount, w.SecretPath("stays")), "", 1)
	w.Must(os.WriteFile(w.Path("other.yaml"), []byte(other), 0o600))
	stdout, stderr, status := w.RunCommand("--config", w.Path("other.yaml"), "sync", "--instance", "goes")
	if status != 0 {
		t.Errorf("another daemon does not get the file that was given up: %d\n%s%s", status, stdout, stderr)
	}
	// And is taken again with the instance.
	w.Reconfigured(func(o *container.Options) { o.Instances = []string{"stays", "comes", "goes"} })
	w.HangUp()
	w.OneInSync("goes", 1)
	stdout, stderr, status = w.RunCommand("--config", w.Path("other.yaml"), "sync", "--instance", "goes")
	if status != 1 || !strings.Contains(stderr, "another campaign-credsync keeps it") {
		t.Errorf("two daemons for one file: %d\n%s%s", status, stdout, stderr)
	}
}

// The path changes to another secret, whose number is lower and which is older: that is no version that goes back. Back at
// the first one, its newest version is applied again.
func TestReloadToAnotherSecret(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	const other = "p8e-OTHERotherOTHERotherOTHERother12"
	w.Secrets = append(w.Secrets, other)
	_, err := w.Vault.Write(w.Ctx, w.SecretPath("other"), container.Credential(other))
	w.Must(err)
	w.NewSecret("prod")
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(2)
	rewrite(w, "path: "+w.SecretPath("prod"), "path: "+w.SecretPath("other"))
	w.HangUp()
	w.InSync(1)
	w.Holds("prod", other)
	w.Kill()
	w.StartDaemon()
	w.InSync(1)
	rewrite(w, "path: "+w.SecretPath("other"), "path: "+w.SecretPath("prod"))
	w.HangUp()
	w.InSync(2)
	w.Holds("prod", secret)
	w.Ran(3, "end", "set")
}

// The mount changes by a restart, to one whose secret has the same path, a lower number, and is older: of another secret, too.
func TestRestartWithAnotherMount(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	const other = "p8e-OTHERotherOTHERotherOTHERother12"
	w.Secrets = append(w.Secrets, other)
	path, mount := w.SecretPath("prod"), w.Vault.MustMountKV("team/other", 2)
	w.Vault.MustWriteAt(mount+"/data/"+path, map[string]any{"data": container.Credential(other)})
	w.Must(w.Vault.SetPolicy(w.Ctx, w.RoleID, w.Vault.ReadPolicy(path)+vaulttest.ReadPolicyAt(mount+"/data/"+path, mount+"/metadata/"+path)))
	w.NewSecret("prod")
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(2)
	w.Stop()
	rewrite(w, "mount: "+w.Vault.Mount+", path", "mount: "+mount+", path")
	w.StartDaemon()
	w.InSync(1)
	w.Holds("prod", other)
	w.Stop()
	rewrite(w, "mount: "+mount+", path", "mount: "+w.Vault.Mount+", path")
	w.StartDaemon()
	w.InSync(2)
	w.Holds("prod", secret)
	w.Ran(3, "end", "set")
}

// Settings of an instance and of all of them: each takes effect, none makes an apply of what is applied.
func TestReloadSettings(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{Instances: []string{"prod", "stage"}})

	// Another path, another field; the credential is the same.
	c := container.Credential(secrets["prod"])
	c["password"] = c["client_secret"]
	delete(c, "client_secret")
	_, err := w.Vault.Write(w.Ctx, w.SecretPath("elsewhere"), c)
	w.Must(err)
	rewrite(w, "path: "+w.SecretPath("prod")+"}", "path: "+w.SecretPath("elsewhere")+", fields: {client_secret: password}}")
	before := standing(w, "stage")
	w.Proxy.Requests()
	w.HangUp()
	w.Must(w.Proxy.Await(w.Ctx, 1, func(r vaulttest.Request) bool {
		return strings.HasSuffix(r.Path, "data/"+w.SecretPath("elsewhere")) && r.DataRead()
	}))
	w.InSync(1)
	w.Ran(2, "end", "set")
	if after := standing(w, "stage"); after != before {
		t.Errorf("the status of the other was\n%s and is\n%s", before, after)
	}
	w.Proxy.Requests()
	w.Pass()
	for _, r := range w.Proxy.Requests() {
		if strings.Contains(r.Path, w.SecretPath("prod")) {
			t.Errorf("the old path is asked: %+v", r)
		}
	}

	// drift.revert: what was put back is only reported, and is put back again. drift.max_reverts and the brake are DriftWar's.
	rewrite(w, "watch:", "drift: {revert: alert}\nwatch:")
	w.HangUp()
	w.Blank("stage")
	w.Is("stage", "drift/drift_alert", "drift.revert: alert")
	w.HangUp()
	w.Is("stage", "drift", "drift.revert: alert")
	if n := strings.Count(w.Log(), "drift not reverted: drift.revert is alert"); n != 1 {
		t.Errorf("told %d times", n)
	}
	rewrite(w, "revert: alert", "revert: splice")
	w.HangUp()
	w.OnDisk("stage", secrets["stage"])
	w.InSync(1)

	// Steps of activation: the new ones come with the next apply.
	w.Reconfigured(func(o *container.Options) { o.Campaign = "activate: {restart: [pipelined]}" })
	w.HangUp()
	w.Ran(0, "end", "restart")
	_, secrets["stage"] = w.NewSecret("stage")
	w.OneInSync("stage", 2)
	w.Ran(1, "end", "restart", "pipelined@stage")

	// The interval of polls: a new version is not found any more within an hour, but by the reload's own poll.
	rewrite(w, "poll: 1s", "poll: 1h")
	rewrite(w, "level: debug", "level: warn")
	w.HangUp()
	w.Pass()
	w.Proxy.Requests()
	quiet := len(w.Log())
	w.NewSecret("stage")
	w.Signal(syscall.SIGHUP)
	w.OneInSync("stage", 3)
	if said := w.Log()[quiet:]; said != "" {
		t.Errorf("log.level: warn, and yet it says\n%s", said)
	}
}

// With a Vault that does not answer nothing that was known is lost: not what is in order, not a refusal, not a version that waits for
// nlserver, not an activation that waits for its time. And nothing is told again.
func TestReloadWhileVaultHangs(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Instances: []string{"fine", "refused", "fails", "held"}})
	rewrite(w, "watch:", "schedule: {activate: \"0 0 29 2 *\"}\nwatch:")
	w.HangUp()
	w.Must(w.Vault.Delete(w.Ctx, w.SecretPath("refused"), 1))
	w.Faults(`{"fail": "before", "only_for": ["fails"]}`)
	_, waits := w.NewSecret("fails")
	w.NewSecret("held")
	w.Is("refused", "blocked/secret_deleted", "is deleted")
	w.Is("fails", "pending/apply_failed", "iRc=")
	w.Is("held", "activation_pending")
	w.Is("fine", "in_sync")

	letGo := w.Proxy.Hang()
	defer letGo()
	polls := func() {
		t.Helper()
		// The other three wait for the one connection.
		w.Must(w.Proxy.Await(w.Ctx, 1, func(r vaulttest.Request) bool { return strings.Contains(r.Path, "/metadata/") }))
		w.Proxy.Requests()
	}
	w.Proxy.Requests()
	polls()
	before, err := w.Asker().Status(w.Ctx)
	w.Must(err)
	told := func() (n int) {
		for _, text := range []string{"secret refused", "secret accepted again", "new version", "credential applied", "msg=activated"} {
			n += strings.Count(w.Log(), text)
		}
		return n
	}
	lines := told()
	w.HangUp()
	polls() // those of the new generation
	after, err := w.Asker().Status(w.Ctx)
	w.Must(err)
	for _, name := range w.Instances {
		was, is := world.One(before, name), world.One(after, name)
		if name == "fails" {
			was.LastError, is.LastError = "", "" // of another attempt
		}
		if is != was {
			t.Errorf("the status was\n%+v and is\n%+v", was, is)
		}
	}
	if !after.Vault.Reachable {
		t.Error("Vault is out of reach, though nobody knows that yet")
	}
	if n := told() - lines; n != 0 {
		t.Errorf("%d lines are told again\n%s", n, w.Log())
	}
	// The credential that waits is in hand: no Vault is needed to try again.
	w.Faults("")
	w.HangUp()
	w.OnDisk("fails", waits)
	w.Is("fails", "activation_pending")
	letGo()
	w.Must(w.Vault.Undelete(w.Ctx, w.SecretPath("refused"), 1))
	w.OneInSync("refused", 1)
	if n := strings.Count(w.Log(), "credential applied"); n != 6 {
		t.Errorf("%d applies, want 6\n%s", n, w.Log())
	}
	w.Logins(0)
}

// Twenty SIGHUPs, whatever is under way: nothing is lost, nothing is done twice, and Vault sees no login of them.
func TestHangUpStorm(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	w.Proxy.Requests()
	storm := func() {
		for range 20 {
			w.Signal(syscall.SIGHUP)
			time.Sleep(5 * time.Millisecond) // two at once are one
		}
	}
	w.Faults(`{"write_delay": "10m"}`)
	_, secrets["prod"] = w.NewSecret("prod")
	w.WaitsAt("write_delay")
	storm()
	w.Release()
	w.InSync(2)
	w.Ran(2, "end", "set")
	w.Ran(2, "end", "reload")

	w.Faults(`{"on": ["reload"], "hang": true}`)
	_, secrets["prod"] = w.NewSecret("prod")
	w.WaitsAt("hang")
	storm()
	w.Release()
	w.InSync(3)
	w.Ran(3, "end", "set")
	w.Ran(3, "end", "reload")

	w.Faults("")
	letGo := w.Proxy.Hang()
	defer letGo()
	storm()
	w.Blank("prod")
	w.Reverted("prod", 1)
	w.Holds("prod", secrets["prod"])
	reloads := w.CountRuns("end", "reload")
	letGo()
	_, secrets["prod"] = w.NewSecret("prod")
	w.InSync(4)
	w.Holds("prod", secrets["prod"])
	w.Ran(4, "end", "set")
	w.Ran(reloads+1, "end", "reload")
	w.Logins(0)
}

// Each way for a configuration to be bad is told in one line, with its place and what to do; polls and reverts go on, and the next good one
// is taken.
func TestReloadOfABadConfiguration(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	good, err := os.ReadFile(w.Config)
	w.Must(err)
	version := 1
	for _, c := range []struct {
		name     string
		old, new string
		says     []string
	}{
		{"unknown key", "vault:\n", "vault:\n  adress: x\n", []string{"config.yaml:2:3", "adress"}},
		{"scheme", "http://", "htp://", []string{"config.yaml:2:12", "vault.address", "https://"}},
		{"missing authority", "vault:\n", "vault:\n  ca_cert: /nowhere/ca.pem\n", []string{"config.yaml:2:12", "vault.ca_cert", "/nowhere/ca.pem", "put the file there"}},
		{"half a pair", "vault:\n", "vault:\n  client_cert: /nowhere/c.pem\n", []string{"config.yaml:2:16", "client_key"}},
		{"missing pair", "vault:\n", "vault:\n  client_cert: /nowhere/c.pem\n  client_key: /nowhere/k.pem\n",
			[]string{"config.yaml:2:16", "vault.client_cert", "/nowhere/c.pem", "put the file there"}},
		{"state_dir", "state_dir: ", "state_dir: /else", []string{"config.yaml", "state_dir", "restart"}},
		{"control_socket", "control.sock", "other.sock", []string{"config.yaml", "control_socket", "restart"}},
		{"no file", "", "", []string{"config.yaml", "no such file"}},
	} {
		if c.old == "" {
			w.Must(os.Remove(w.Config))
		} else {
			rewrite(w, c.old, c.new)
		}
		refused(w, c.says...)
		w.Is("prod", "in_sync")
		w.Blank("prod")
		w.OnDisk("prod", secrets["prod"])
		_, secrets["prod"] = w.NewSecret("prod")
		version++
		w.InSync(version)
		w.Must(os.WriteFile(w.Config, good, 0o600))
	}
	rewrite(w, "watch:", "drift: {revert: alert}\nwatch:")
	w.HangUp()
	w.Blank("prod")
	w.Is("prod", "drift")
}
