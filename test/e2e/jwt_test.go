package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/pages"
	"campaign-credsync/test/world"
)

const (
	oldBuild = `{"options": ["setimsjwtauth"]}`
	newBuild = `{"options": ["setimsoauth", "setimsauth", "setimsjwtauth"]}`
)

// jwtHost is a host whose daemon has applied a JWT credential, and the attributes of that.
func jwtHost(t *testing.T, options container.Options) (w *world.World, had map[string]string) {
	t.Helper()
	w = world.New(t, options)
	w.Faults(oldBuild)
	body := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", 2)
	w.Secrets = append(w.Secrets, body)
	data := container.Credential("p8e-" + strings.Repeat("j", 32))
	data["key"] = "-----BEGIN PRIVATE KEY-----\n" + body + "\n-----END PRIVATE KEY-----\n"
	w.WriteSecret("prod", data)
	w.StartDaemon()
	w.InSync(1)
	had = w.Managed("prod")
	if had["authIMSTAPrivateKey"] == "" {
		t.Fatal("there is no private key in the file")
	}
	return w, had
}

// update puts another build in the place of nlserver.
func update(w *world.World) {
	w.T.Helper()
	w.Faults(newBuild)
	later := time.Now().Add(time.Minute)
	w.Must(os.Chtimes(filepath.Join(w.Home, "bin", "nlserver"), later, later))
}

// jwtMetric is how Prometheus shows the warning.
const jwtMetric = `campaign_credsync_warning{code="jwt_ended"} `

// commandsOf returns the commands of a page, block by block.
func commandsOf(t *testing.T, page string) (commands []string) {
	t.Helper()
	blocks, err := pages.Read("../../docs", page)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if b.Language == "sh" {
			commands = append(commands, b.Text)
		}
	}
	return commands
}

// onHost is what the commands of documents find on a host. Vault's is handed to the test.
const onHost = `set -e
sudo() { while :; do case $1 in -E) shift ;; -u) shift 2 ;; *) break ;; esac; done; "$@"; }
campaign-credsync() { "$PROGRAM" --config "$CONFIG" "$@" || [ "$1" = doctor ] || [ "$1" = status ]; }
loaded() { campaign-credsync status --json | grep -o '"config_loaded_at":"[^"]*"'; }
systemctl() {
	[ "$*" = "reload campaign-credsync" ]
	was=$(loaded)
	kill -HUP "$DAEMON"
	until [ "$(loaded)" != "$was" ]; do sleep 0.01; done
}
sudoedit() { sed -i "$EDIT" "$1"; }
vault() { printf '%s\n' "$@" >"$VAULT.arguments"; cat >"$VAULT.input"; }
`

// types has a shell run the commands of a document as its reader does, and returns what they print. edit is what sudoedit does.
func types(w *world.World, commands, input, edit string) string {
	w.T.Helper()
	commands = strings.NewReplacer("/etc/campaign-credsync/config.yaml", w.Config, "/usr/local/neolane/nl6", w.Home).Replace(commands)
	ctx, cancel := context.WithTimeout(w.Ctx, world.Patience)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-c", onHost+commands)
	c.Env = append(os.Environ(), "PROGRAM="+world.Plain().Command, "CONFIG="+w.Config, fmt.Sprintf("DAEMON=%d", w.Running.PID()), "EDIT="+edit, "VAULT="+w.Path("vault"))
	c.Stdin = strings.NewReader(input)
	out, err := c.CombinedOutput()
	w.Printed.Write(out)
	if err != nil {
		w.T.Fatalf("%v: %s\n%s", err, out, commands)
	}
	return string(out)
}

// fromHost writes to Vault what the commands gave it.
func fromHost(w *world.World) (secret string) {
	w.T.Helper()
	arguments, err := os.ReadFile(w.Path("vault.arguments"))
	w.Must(err)
	input, err := os.ReadFile(w.Path("vault.input"))
	w.Must(err)
	w.Must(os.Remove(w.Path("vault.input")))
	words := strings.Split(strings.TrimSpace(string(arguments)), "\n")
	if want := []string{"kv", "put", "-mount=secret", "campaign/prod/oauth"}; !slices.Equal(words[:4], want) {
		w.T.Fatalf("vault was called with %q, want %q", words[:4], want)
	}
	data := map[string]any{}
	for _, word := range words[4:] {
		name, value, _ := strings.Cut(word, "=")
		if value == "-" {
			value = string(input)
		}
		data[name] = value
	}
	w.WriteSecret("prod", data)
	return string(input)
}

// The page is followed, word for word. At each step there is a whole credential on disk, which changes once, and the warning says what is
// left to do.
func TestMigrationFromJWT(t *testing.T) {
	t.Parallel()
	w, jwt := jwtHost(t, container.Options{Campaign: "command: setimsjwtauth", Extra: map[string]string{"prod": "fields: {private_key: key}"}})
	w.Conf = append(w.Conf, "config-prod.xml.jwt")
	commands := commandsOf(t, "migrate-from-jwt.md")
	if len(commands) != 6 {
		t.Fatalf("the page has other steps: %q", commands)
	}
	pause, configure, writeSecret, resume, cleanUp, removeKey := commands[0], commands[1], commands[2], commands[3], commands[4], commands[5]
	keeps := func(sets int) {
		t.Helper()
		if now := w.Managed("prod"); !maps.Equal(now, jwt) {
			t.Errorf("the JWT credential changed: %v, was %v", now, jwt)
		}
		w.Ran(sets, "end", "set")
	}
	w.Warns("jwt_ended", false, "campaign.command is setimsjwtauth", "prod: the secret has a private key", "prod: the file has a private key", "7.4.1 build 9383")
	w.Stop()
	w.StartDaemon() // which does not read the secret again
	w.Warns("jwt_ended", false, "prod: the secret has a private key")
	w.InSync(1)
	w.Exits(0, jwtMetric+"1", "status", "--prometheus")
	world.Says(t, validated(w), "campaign.command: Adobe has ended JWT", "instances[0].fields.private_key: is for JWT credentials only")
	doctor(w, 0).must(t, "jwt_ended", "warning", "campaign.command is setimsjwtauth", "7.4.1 build 9383")
	doctor(w, 0).must(t, "jwt_ended", "warning", "the file has a private key")
	keeps(1)

	types(w, pause, "", "")
	w.Is("prod", "paused", "JWT to OAuth")
	update(w)
	out := types(w, configure, "", "s/, command: setimsjwtauth//")
	if strings.Contains(out, "campaign.command") {
		t.Errorf("something is said of campaign.command: %s", out)
	}
	doctor(w, 0).must(t, "nlserver", "ok", "build 9383")
	w.Warns("jwt_ended", false, "prod: the secret has a private key")
	keeps(1)

	secret := "p8e-" + strings.Repeat("o", 32)
	types(w, writeSecret, secret+"\n", "")
	if fromHost(w) != secret {
		t.Error("another secret reaches Vault")
	}
	w.AwaitStatus("it is seen", func(s container.Status) bool { return world.One(s, "prod").WantedVersion == 2 })
	keeps(1)

	types(w, resume, "", "")
	w.InSync(2)
	w.Holds("prod", secret)
	w.Ran(2, "end", "set")
	s := w.AwaitStatus("a status", func(container.Status) bool { return true })
	if len(s.Warnings) != 1 || strings.Contains(s.Warnings[0].Text, "the secret has") || strings.Contains(s.Warnings[0].Text, "campaign.command") {
		t.Errorf("warnings: %v", s.Warnings)
	}
	w.Warns("jwt_ended", false, "prod: the file has a private key")

	if out := types(w, cleanUp, "", "s/, fields: {private_key: key}//"); strings.Contains(out, "JWT") {
		t.Errorf("validate still says something: %s", out)
	}
	w.Pass() // with the secret read again, by other names
	w.InSync(2)
	w.Ran(2, "end", "set")

	reloads := w.CountRuns("end", "reload")
	oauth := w.Managed("prod")
	if oauth["authIMSTAPrivateKey"] != jwt["authIMSTAPrivateKey"] {
		t.Error("the stand-in is said to leave the key")
	}
	types(w, removeKey, "", "")
	w.Warns("jwt_ended", true)
	w.Pass()
	w.InSync(2)
	oauth["authIMSTAPrivateKey"] = ""
	if now := w.Managed("prod"); !maps.Equal(now, oauth) {
		t.Errorf("removing the key left %v, want %v", now, oauth)
	}
	if bytes.Contains(w.Read("prod"), []byte("authIMSTAPrivateKey=")) {
		t.Error("the key is still in the file")
	}
	w.Ran(reloads+1, "end", "reload")

	w.Exits(0, jwtMetric+"0", "status", "--prometheus")
	doctor(w, 0).must(t, "jwt_ended", "ok")
	w.Holds("prod", secret)
	w.Ran(2, "end", "set")
	// The key is guarded as absent from now on.
	w.Edits("prod", func(d []byte) []byte {
		return world.Replaced(t, d, ` authIMSTAId="`, ` authIMSTAPrivateKey="@b2xk" authIMSTAId="`)
	})
	w.AwaitStatus("the revert", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 1 && s.Is("in_sync") })
	if now := w.Managed("prod"); !maps.Equal(now, oauth) {
		t.Errorf("the revert left %v, want %v", now, oauth)
	}
}

func validated(w *world.World) string {
	_, stderr, _ := w.RunCommand("validate")
	return stderr
}

// A host that was not updated keeps its JWT credential when the secret is another: with its option, half of each would be left.
func TestOAuthOverJWTOnAnOldBuild(t *testing.T) {
	t.Parallel()
	w, jwt := jwtHost(t, container.Options{Extra: map[string]string{"prod": "fields: {private_key: key}"}})
	_, secret := w.NewSecret("prod")
	w.Is("prod", "pending/apply_failed", "-setimsjwtauth cannot replace it", "7.4.1 build 9383")
	if now := w.Managed("prod"); !maps.Equal(now, jwt) {
		t.Errorf("the JWT credential changed: %v, was %v", now, jwt)
	}
	w.Ran(1, "end", "set")
	w.Blank("prod")
	w.AwaitStatus("it is still guarded", func(s container.Status) bool { return world.One(s, "prod").RevertedTotal == 1 })
	if now := w.Managed("prod"); !maps.Equal(now, jwt) {
		t.Errorf("the revert left %v, want %v", now, jwt)
	}
	update(w)
	w.Signal(hurry)
	w.InSync(2)
	w.Holds("prod", secret)
}

// A daemon that is new on a host with a JWT credential holds the OAuth credential, and by order applies it only where nlserver can.
func TestFirstStartOverJWT(t *testing.T) {
	t.Parallel()
	w := world.New(t, container.Options{})
	w.Faults(oldBuild)
	w.Run("sh", "-c", `. "$1/env.sh" && "$1/bin/nlserver" config -instance:prod -setimsjwtauth:0123456789ABCDEF01234567@AdobeOrg/ffffffff/F@techacct.adobe.com/p8e-old/a2V5`, "sh", w.Home)
	jwt := w.Managed("prod")
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.Is("prod", "held")
	versionRead(w)
	w.Warns("jwt_ended", false, "prod: the file has a private key")
	w.Exits(1, "-setimsjwtauth cannot replace it", "sync")
	if now := w.Managed("prod"); !maps.Equal(now, jwt) {
		t.Errorf("the JWT credential changed: %v, was %v", now, jwt)
	}
	update(w)
	w.Exits(0, "in_sync", "sync")
	w.Holds("prod", secret)
}

// The warning follows what is on disk, also where it was not the daemon who wrote that, and it does not flap while the file is unusable.
func TestJWTWarningFollowsTheFile(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Settings: "drift: {revert: alert}"})
	w.Warns("jwt_ended", true)
	w.Edits("prod", func(d []byte) []byte {
		return world.Replaced(t, d, ` authIMSTAId="`, ` authIMSTAPrivateKey="@b2xk" authIMSTAId="`)
	})
	w.Warns("jwt_ended", false, "prod: the file has a private key")
	with := w.Read("prod")
	w.Must(os.WriteFile(w.File("prod"), with[:len(with)/2], 0o640))
	w.Is("prod", "degraded/file_damaged")
	w.Warns("jwt_ended", false, "prod: the file has a private key")
	w.Must(os.WriteFile(w.File("prod"), with, 0o640))
	w.Is("prod", "drift")
	w.Edits("prod", func(d []byte) []byte {
		return world.Replaced(t, d, ` authIMSTAPrivateKey="@b2xk"`, ` authIMSTAPrivateKey=""`)
	})
	w.Warns("jwt_ended", true)
	w.Edits("prod", func(d []byte) []byte { return world.Replaced(t, d, ` authIMSTAPrivateKey=""`, "") })
	w.Is("prod", "in_sync")
}
