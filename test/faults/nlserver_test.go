package faults_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// trouble is a way in which nlserver fails.
type trouble struct {
	name     string
	faults   string                   // switches of the stand-in
	campaign string                   // configuration
	spoil    func(*world.World) error // besides the switches
	mend     func(*world.World) error
	says     []string // what the state says
	conf     []string // names beside the file that nlserver leaves
	notLeft  bool     // the fault is one of activation or succeeds after all: the new credential is on disk
}

// real is nlserver's own run, within a script that is in its place.
const real = `"$0.real" "$@" || exit; `

var unwrap = rename("bin/nlserver.real", "bin/nlserver")

var troubles = []trouble{
	{name: "missing", spoil: rename("bin/nlserver", "bin/gone"), mend: rename("bin/gone", "bin/nlserver"),
		says: []string{"bin/nlserver: no such file", "campaign.nlserver"}},
	{name: "not executable",
		spoil: func(w *world.World) error { return os.Chmod(filepath.Join(w.Home, "bin/nlserver"), 0o644) },
		mend:  func(w *world.World) error { return os.Chmod(filepath.Join(w.Home, "bin/nlserver"), 0o755) },
		says:  []string{"bin/nlserver: permission denied", "campaign.nlserver"}},
	{name: "env.sh missing", spoil: rename("env.sh", "env.gone"), mend: rename("env.gone", "env.sh"),
		says: []string{"campaign.env_script", "env.sh: no such file"}},
	{name: "env.sh ends the shell",
		spoil: func(w *world.World) error {
			return errors.Join(rename("env.sh", "env.gone")(w), os.WriteFile(filepath.Join(w.Home, "env.sh"), []byte("echo no database >&2; exit 3\n"), 0o644))
		},
		mend: rename("env.gone", "env.sh"), says: []string{"env.sh", "exit status 3", "no database"}},
	{name: "env.sh is for no shell",
		spoil: func(w *world.World) error {
			return errors.Join(rename("env.sh", "env.gone")(w), os.WriteFile(filepath.Join(w.Home, "env.sh"), []byte("for ((i = 0; i < 1; i++)); do :; done; (\n"), 0o644))
		},
		mend: rename("env.gone", "env.sh"), says: []string{"env.sh", "yntax error"}},
	{name: "env.sh sets nothing",
		spoil: func(w *world.World) error {
			return errors.Join(rename("env.sh", "env.gone")(w), os.WriteFile(filepath.Join(w.Home, "env.sh"), nil, 0o644))
		},
		mend: rename("env.gone", "env.sh"), says: []string{"error while loading shared libraries"}},
	{name: "env.sh hangs", campaign: "timeout: 1s",
		spoil: func(w *world.World) error {
			return errors.Join(rename("env.sh", "env.gone")(w), os.WriteFile(filepath.Join(w.Home, "env.sh"), []byte("sleep 600\n"), 0o644))
		},
		mend: rename("env.gone", "env.sh"), says: []string{"env.sh", "campaign.timeout"}},
	{name: "no option", faults: `{"options": []}`, campaign: "command: auto", says: []string{"setimsoauth", "7.4.1"}},
	{name: "configured option unknown", faults: `{"options": ["setimsauth"]}`, campaign: "command: setimsoauth", says: []string{"Unknown option", "-setimsoauth"}},
	{name: "fails before", faults: `{"fail": "before"}`, says: []string{"exit status 1", "iRc="}},
	{name: "fails after", faults: `{"fail": "after"}`, notLeft: true},
	{name: "hangs", faults: `{"hang": true}`, campaign: "timeout: 1s", says: []string{"campaign.timeout"}},
	{name: "hangs deaf", faults: `{"hang": true, "ignore_sigterm": true}`, campaign: "timeout: 1s", says: []string{"campaign.timeout"}},
	{name: "hangs with the file empty", faults: `{"hang_after_truncate": true}`, campaign: "timeout: 1s", says: []string{"campaign.timeout", "was restored"}},
	{name: "hangs deaf with the file empty", faults: `{"hang_after_truncate": true, "ignore_sigterm": true}`, campaign: "timeout: 1s",
		says: []string{"campaign.timeout", "was restored"}},
	{name: "writes nothing", faults: `{"no_write": true}`, says: []string{"status 0"}},
	{name: "writes half", faults: `{"write_half": true}`, says: []string{"damaged", "was restored"}},
	{name: "writes an empty file", faults: `{"write_empty": true}`, says: []string{"damaged", "was restored"}},
	{name: "writes garbage", faults: `{"garbage": true}`, says: []string{"damaged", "was restored"}},
	{name: "killed in the middle", faults: `{"die": true, "write_half": true}`, says: []string{"signal: killed", "was restored"}},
	{name: "killed with the file empty", faults: `{"die": true, "write_empty": true}`, says: []string{"signal: killed", "was restored"}},
	{name: "killed after the write", faults: `{"die": true}`, notLeft: true},
	{name: "prints the secret and fails", faults: `{"print_secret": true, "fail": "before"}`, says: []string{"exit status 1", "[redacted]"}},
	{name: "prints the secret in pieces and fails", faults: `{"print_pieces": true, "fail": "before"}`, says: []string{"exit status 1", "[redacted]", "iRc="}},
	{name: "prints the secret in pieces last", faults: `{"print_pieces": true, "no_write": true}`, says: []string{"status 0", "[redacted]"}},
	{name: "prints the secret and hangs", faults: `{"print_secret": true, "hang": true}`, campaign: "timeout: 1s", says: []string{"campaign.timeout"}},
	{name: "prints much", faults: `{"print_bytes": 20000000, "fail": "before"}`, says: []string{"exit status 1", "iRc="}},
	{name: "prints the secret and works", faults: `{"print_secret": true}`, notLeft: true},
	{name: "prints the secret in pieces and works", faults: `{"print_pieces": true}`, notLeft: true},
	{name: "leaves a child", faults: `{"fork_child": "3s"}`, notLeft: true},
	{name: "a child writes later", spoil: wrapped(`setsid sh -c 'sleep 3; exec "$0" "$@"' "$0.real" "$@" </dev/null >/dev/null 2>&1 & exit 0`), notLeft: true},
	{name: "does not encrypt", spoil: wrapped(real + `sed -i '/<ims authIMSClientId/,/>/ s|\(authIMSTAClientSecret="\)[^"]*|\1'"${3##*/}|" "$FILE"; exit 0`),
		mend: unwrap, says: []string{"status 0", "authIMSTAClientSecret holds a secret in clear"}},
	{name: "shows the secret elsewhere", spoil: wrapped(real + `sed -i '/<ims authIMSClientId/ s|<ims |<ims note="'"${3##*/}"'" |' "$FILE"; exit 0`),
		mend: unwrap, says: []string{"status 0", "note holds a secret in clear"}},
	{name: "writes another document", spoil: wrapped(`echo '<serverconf/>' >"$FILE"; exit 0`), mend: unwrap,
		says: []string{"damaged", "<serverconf><shared> is gone", "was restored"}},
	{name: "writes to another instance", spoil: wrapped(`cp "$FILE" "${FILE%/*}/config-other.xml"; set -- "$1" -instance:other "$3"; ` + real +
		`rm "${FILE%/*}/config-other.xml"; exit 0`), mend: unwrap, says: []string{"status 0"}},
	{name: "makes it a link", spoil: wrapped(real + `mv "$FILE" "$FILE.new"; ln -s "${FILE##*/}.new" "$FILE"; exit 0`), notLeft: true,
		conf: []string{"config-prod.xml.new"}},
	{name: "empties the secret", spoil: wrapped(`sed -i '/<ims authIMSClientId/,/>/ s/authIMSTAClientSecret="[^"]*"/authIMSTAClientSecret=""/' "$FILE"; exit 1`),
		mend: unwrap, says: []string{"exit status 1"}},
	{name: "writes the ids only", spoil: wrapped(`sed -i '/<ims authIMSClientId/,/>/ s/ authIMSTA[A-Za-z]*="[^"]*"//g' "$FILE"; exit 0`), mend: unwrap,
		says: []string{"status 0", "is not the credential's"}},
}

func rename(from, to string) func(*world.World) error {
	return func(w *world.World) error {
		return os.Rename(filepath.Join(w.Home, from), filepath.Join(w.Home, to))
	}
}

// wrapped puts a script in nlserver's place, which does as it likes with runs that set a credential.
func wrapped(script string) func(*world.World) error {
	return func(w *world.World) error {
		nlserver := filepath.Join(w.Home, "bin", "nlserver")
		text := "#!/bin/sh\nFILE='" + w.File("prod") + "'\ncase \"$*\" in\n*-setims*)\n" + script + "\n;;\nesac\nexec '" + nlserver + ".real' \"$@\"\n"
		return errors.Join(os.Rename(nlserver, nlserver+".real"), os.WriteFile(nlserver, []byte(text), 0o755))
	}
}

// However nlserver fails: a credential that worked is on disk afterwards, the state says why, and when the fault ends the
// new one is applied. This with a credential of ours, and with one that somebody set by hand before we came.
func TestNlserverTrouble(t *testing.T) {
	t.Parallel()
	for _, before := range []string{"ours", "set by hand"} {
		for _, c := range troubles {
			t.Run(before+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				campaign := applyAtOnce
				if c.campaign != "" {
					campaign += ", " + c.campaign
				}
				w := world.New(t, container.Options{Campaign: campaign})
				w.Conf = c.conf
				version, old := 1, "p8e-"+strings.Repeat("h", 32)
				if before == "ours" {
					version, old = w.NewSecret("prod")
					w.StartDaemon()
					w.InSync(version)
					w.Stop() // nlserver is asked anew what it can
				} else {
					w.SetByHand(old)
				}
				if c.faults != "" {
					w.Faults(c.faults)
				}
				if c.spoil != nil {
					w.Must(c.spoil(w))
				}
				next, secret := w.NewSecret("prod")
				reloads := w.CountRuns("end", "reload")
				w.StartDaemon()
				if c.notLeft {
					w.InSync(next)
					w.Holds("prod", secret)
					w.Ran(reloads+1, "end", "reload")
					return
				}
				w.Is("prod", "pending/apply_failed", c.says...)
				w.OnDisk("prod", old)
				got := world.One(w.Pass(), "prod") // it is tried again
				w.OnDisk("prod", old)
				if got.State != "pending" || got.WantedVersion != next || got.AppliedVersion == next {
					t.Errorf("%+v", got)
				}
				if c.mend != nil {
					w.Must(c.mend(w))
				}
				w.Faults("")
				w.Pass()
				w.InSync(next)
				w.Holds("prod", secret)
				w.Ran(reloads+1, "end", "reload")
			})
		}
	}
}

// Activation that fails is retried, by steps: what is done is not done again, and the credential is not applied again.
func TestActivationTrouble(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, faults string
		says         []string
		done         map[string]int // steps that are over while the fault lasts, with how often they may end
		limit        string         // where something hangs: a busy machine may take a second for a restart that does not
	}{
		{"reload", `{"reload_fail": true}`, []string{"config -reload", "exit status 1"}, nil, ""},
		{"second step", `{"restart_fail": ["web"]}`, []string{"restart web", "exit status 1"}, map[string]int{"reload": 1}, ""},
		{"last step", `{"restart_fail": ["pipelined@prod"]}`, []string{"restart pipelined@prod"}, map[string]int{"reload": 1, "web": 1}, ""},
		{"killed", `{"on": ["reload"], "die": true}`, []string{"signal: killed"}, nil, ""},
		{"hangs", `{"on": ["reload"], "hang": true}`, []string{"campaign.timeout"}, nil, "timeout: 1s, "},
		{"prints secrets", `{"on": ["reload"], "print_secret": true, "fail": "after"}`, []string{"exit status 1", "(iRc=-5399)"}, nil, ""},
		{"prints secrets in pieces", `{"on": ["reload"], "print_pieces": true, "fail": "after"}`, []string{"exit status 1", "(iRc=-5399)"}, nil, ""},
		{"prints secrets in pieces last", `{"on": ["reload"], "print_pieces": true, "exit_code": 3}`, []string{"exit status 3"}, nil, ""},
		{"restart prints secrets", `{"on": ["restart"], "restart_fail": ["web"], "print_pieces": true, "print_secret": true, "exit_code": 3}`,
			[]string{"restart web", "exit status 3"}, map[string]int{"reload": 1}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, container.Options{Campaign: c.limit + "activate: {restart: [web, pipelined]}"})
			w.Faults(c.faults)
			_, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.Is("prod", "activation_pending/activation_failed", c.says...)
			w.Holds("prod", secret)
			for range 2 {
				if _, _, status := w.RunCommand("sync"); status != 1 {
					t.Errorf("sync ended with %d", status)
				}
			}
			w.Stop() // what is pending survives
			w.StartDaemon()
			w.Is("prod", "activation_pending", c.says...)
			if n := c.done["reload"]; n > 0 {
				w.Ran(n, "end", "reload")
			}
			if n := c.done["web"]; n > 0 {
				w.Ran(n, "end", "restart", "web")
			}
			w.Faults("")
			w.HangUp() // a restart that failed three times in a row would not be tried at once
			w.InSync(1)
			w.Ran(1, "end", "set")
			for step, n := range map[string]int{"web": c.done["web"], "pipelined@prod": 0} {
				if n == 0 && !strings.Contains(c.faults, step) {
					w.Ran(1, "end", "restart", step)
				}
			}
		})
	}
}
