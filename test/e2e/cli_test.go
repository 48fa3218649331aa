package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// The commands without a daemon, from the first apply on.
func TestCommandsWithoutDaemon(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{Settings: "log: {level: warn, format: text}"})
	w.Exits(1, "no daemon answers", "status")
	w.Exits(1, "no daemon answers", "status", "--json")

	before := written(w)
	w.Exits(1, "no secret at", "sync", "--dry-run")
	w.Exits(3, "no secret at", "diff")
	_, secret := w.NewSecret("prod")
	w.Exits(3, "would apply version 1 with nlserver config -instance:prod -setimsoauth: no version is applied yet", "sync", "--dry-run")
	w.Exits(3, "version 1, which waits", "diff")
	if after := written(w); after != before {
		t.Errorf("something was written:\n%s\nbefore\n%s", after, before)
	}

	w.Exits(0, "prod: in_sync, version 1 applied", "sync")
	w.Holds("prod", secret)
	w.Ran(1, "end", "reload")
	w.Exits(0, "in sync, nothing to do", "sync", "--dry-run")
	if got := w.Exits(0, "", "diff"); got != "" {
		t.Errorf("nothing differs, and diff says %q", got)
	}
	w.Exits(0, "prod: in_sync", "sync")
	w.Exits(0, "prod: in_sync", "sync", "--instance", "prod")
	w.Exits(2, "nobody", "sync", "--instance", "nobody")
	w.Exits(2, "nobody", "diff", "--instance", "nobody")
	w.Ran(1, "end", "set")

	w.Blank("prod")
	before = written(w)
	w.Exits(3, "would put back authIMSTAClientSecret: ", "sync", "--dry-run")
	w.Exits(3, "authIMSTAClientSecret differs", "diff")
	if after := written(w); after != before {
		t.Errorf("something was written:\n%s\nbefore\n%s", after, before)
	}
	w.Exits(0, "prod: in_sync", "sync")
	w.Holds("prod", secret)

	w.WriteSecret("prod", container.Credential(secret)) // the same credential again
	w.Exits(3, "would record version 2", "sync", "--dry-run")
	w.Exits(0, "version 2 applied", "sync")
	w.Ran(1, "end", "set")

	// A difference that has no attribute of its own is told all the same.
	data := container.Credential(secret)
	data["ims_org_id"] = "0123456789ABCDEF01234568@AdobeOrg"
	w.WriteSecret("prod", data)
	w.Exits(3, "would apply version 3", "sync", "--dry-run")
	w.Exits(3, "version 3", "diff")
	w.Exits(0, "version 3 applied", "sync")
	w.Ran(2, "end", "set")

	w.WriteSecret("prod", map[string]any{"client_id": "x"})
	w.Exits(3, "field ims_org_id", "diff")
	w.Exits(1, "sync fails: keeps what is applied", "sync", "--dry-run")
	w.Exits(1, "blocked", "sync")
	w.NewSecret("prod")

	w.Proxy.Down()
	w.Exits(1, "is Vault running", "diff")
	w.Exits(1, "cannot tell", "sync", "--dry-run")
	w.Exits(1, "is Vault running", "sync")
	w.Must(w.Proxy.Up())

	w.Faults(`{"fail": "before", "print_secret": true}`)
	w.Exits(1, "exit status 1", "sync")
	w.Faults(`{"reload_fail": true}`)
	w.Exits(1, "activation_pending", "sync")
	w.Exits(3, "activation waits: reload", "diff")
	w.Faults("")
	w.Exits(0, "prod: in_sync, version 5", "sync")

	document := w.Read("prod")
	w.Must(os.Remove(w.File("prod")))
	w.Exits(1, "missing", "diff")
	w.Exits(1, "missing", "sync", "--dry-run")
	w.Exits(1, "missing", "sync")
	w.Must(os.WriteFile(w.File("prod"), document, 0o640))
	if n := w.Tokens(); n != 0 {
		t.Errorf("commands left %d tokens", n)
	}
}

func TestCommandsWithDaemon(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Settings: "watch: {poll: 1h}", Instances: []string{"a", "b"}})
	w.Pass() // what there is to save has been
	_, second := w.NewSecret("a")
	before := written(w)
	w.Exits(3, "a: would apply version 2 with nlserver config -instance:a -setimsoauth: version 1 is applied", "sync", "--dry-run")
	w.Exits(3, "a: authIMSTAClientSecret changes with version 2", "diff")
	w.Exits(0, "", "diff", "--instance", "b")
	if after := written(w); after != before {
		t.Errorf("something was written:\n%s\nbefore\n%s", after, before)
	}
	if got := w.Exits(0, "b: in_sync", "sync", "--instance", "b"); strings.Contains(got, "a:") {
		t.Errorf("asked for b: %s", got)
	}
	w.Ran(2, "end", "set")
	w.Exits(0, "a: in_sync, version 2 applied", "sync", "--instance", "a")
	w.Holds("a", second)
	w.Exits(0, "in_sync", "status")
	w.NewSecret("b")
	w.Proxy.Down()
	w.Exits(1, "degraded", "sync")
	w.Exits(3, "degraded", "status")
	w.Must(w.Proxy.Up())
	w.Exits(0, "b: in_sync, version 2", "sync")
	w.Stop()
	w.Exits(1, "no daemon answers", "status")
}

func TestValidate(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	w.Proxy.Down() // it is offline
	stdout := w.Exits(0, "poll: 1s", "validate", "--effective")
	for _, secret := range append(w.Secrets, w.RoleID) {
		if strings.Contains(stdout, secret) {
			t.Error("validate shows a secret or the role id")
		}
	}
	// What it prints is a configuration itself.
	again := w.Path("again.yaml")
	w.Must(os.WriteFile(again, []byte(stdout), 0o600))
	if out, err := exec.Command(world.Plain().Command, "--config", again, "validate").CombinedOutput(); err != nil {
		t.Errorf("what validate --effective prints is not valid: %v\n%s", err, out)
	}

	good, err := os.ReadFile(w.Config)
	w.Must(err)
	for _, bad := range []string{
		"", "{", "instances: []\n", string(good) + "drift: {max_reverts: 0}\n", string(good) + "nonsense: 1\n",
		string(bytes.Replace(good, []byte("name: prod"), []byte("name: ../prod"), 1)),
	} {
		w.Must(os.WriteFile(w.Config, []byte(bad), 0o600))
		for _, command := range []string{"run", "sync", "validate", "diff"} {
			w.Exits(2, w.Config, command)
		}
	}
	w.Must(os.Remove(w.Config))
	for _, command := range []string{"run", "sync", "validate", "diff", "status"} {
		w.Exits(2, w.Config, command)
	}
	w.Exits(2, "", "nonsense")
	w.Exits(2, "", "run", "argument")
	w.Exits(2, "", "status", "--nonsense")
}
