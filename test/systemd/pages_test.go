//go:build systemd

package systemd

import (
	"crypto/rand"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"campaign-credsync/sources/vaulttest"
	"campaign-credsync/test/pages"
)

// TestPages does what the documents for operators tell to type, page by page, on a host where nothing is installed yet. Of vault and
// ssh there are stand-ins: vaultcli takes vault's arguments and asks a real Vault, and ssh runs here what it would run elsewhere; sudo is a
// script that keeps to what the pages use, also that an environment is lost without -E.
func TestPages(t *testing.T) {
	t.Setenv("VAULT_ADDR", "")
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("VAULT_NAMESPACE", "")
	requireTools(t)
	deb := buildDeb(t, "1.0.0")
	p := &reader{host: newHost(t)}
	p.proxy = p.vault.Proxy(t)
	copyFile(t, deb, p.path("/root/"+filepath.Base(deb)))
	p.installPrograms(t)
	for _, page := range pages.Operators {
		if !t.Run(page, func(t *testing.T) { p.doPage(t, page) }) {
			t.FailNow() // each begins where the one before ended
		}
	}
	p.isInSync(t)
}

// reader is who types.
type reader struct {
	*host
	proxy  *vaulttest.Proxy // in front of Vault, for the daemon
	secret string           // the one that was typed last
}

const sudo = `#!/bin/bash
keep= user=root
while :; do
	case $1 in
	-E) keep=1 ;;
	-u) user=$2; shift ;;
	-*) echo "sudo: $1 is not known here" >&2; exit 1 ;;
	*) break ;;
	esac
	shift
done
[ -n "$keep" ] || exec env -i "PATH=$PATH" runuser -u "$user" -- "$@"
exec runuser -u "$user" -- "$@"
`

const ssh = `#!/bin/bash
shift
exec bash -c "$*"
`

func (p *reader) installPrograms(t *testing.T) {
	t.Helper()
	cli := filepath.Join(t.TempDir(), "vault")
	if out, err := outside(t, "env", "CGO_ENABLED=0", "go", "build", "-o", cli, "./test/vaultcli"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	copyFile(t, cli, p.path("/usr/local/bin/vault"))
	p.write(t, "/usr/local/bin/sudo", sudo, 0o755)
	p.write(t, "/usr/local/bin/ssh", ssh, 0o755)
}

// asHere puts what is there in place of a page's examples.
func (p *reader) asHere(t *testing.T, text string) string {
	t.Helper()
	if strings.Contains(text, zeroUUID) {
		if p.roleID == "" {
			t.Fatal("the page uses a role id before it has made the role")
		}
		text = strings.ReplaceAll(text, zeroUUID, p.roleID)
	}
	return strings.NewReplacer(
		"https://vault.example.com:8200", p.proxy.Address,
		"_amd64.deb", "_"+runtime.GOARCH+".deb",
	).Replace(text)
}

const zeroUUID = "00000000-0000-0000-0000-000000000000"

// doPage runs the commands of a page, and before and after each block what scenes has for it.
func (p *reader) doPage(t *testing.T, page string) {
	blocks, err := pages.Read(filepath.Join(repository(t), "docs"), page)
	if err != nil {
		t.Fatal(err)
	}
	s := p.openShell(t)
	defer s.close(t)
	s.export(t, "VAULT_ADDR", p.vault.Address)
	s.export(t, "VAULT_TOKEN", p.vault.Token)
	n := 0
	for _, b := range blocks {
		if b.Language != "sh" {
			continue
		}
		n++
		scene := scenes[page][n]
		if scene.before != nil {
			scene.before(t, p)
		}
		said := ""
		for _, command := range b.Commands() {
			if b.Excused(command) == "" {
				said += p.do(t, s, b, p.asHere(t, command))
			}
		}
		if scene.after != nil {
			scene.after(t, p, said)
		}
	}
	for at := range scenes[page] {
		if at > n {
			t.Errorf("there is a scene for block %d, and %s has %d", at, page, n)
		}
	}
}

var (
	asksSecret = regexp.MustCompile(`read -rs SECRET`)
	opensShell = regexp.MustCompile(`^sudo .*bash *(#.*)?$`)
	prepared   = regexp.MustCompile(`^vault read -field=role_id`)
)

// do types one command and what it asks for.
func (p *reader) do(t *testing.T, s *shell, b pages.Block, command string) (said string) {
	t.Helper()
	trimmed := strings.TrimSpace(command)
	switch {
	case asksSecret.MatchString(command):
		p.secret = newSecret(p)
		s.send(t, command+p.secret+"\n")
		return ""
	case opensShell.MatchString(trimmed):
		s.send(t, command+"set -eo pipefail\n")
		return ""
	case trimmed == "exit":
		s.send(t, command)
		return ""
	}
	said, ended := s.run(t, command)
	if !ended {
		t.Fatalf("%v: %s\nfails:\n%s", b, command, said)
	}
	if prepared.MatchString(trimmed) {
		p.roleID = strings.TrimSpace(said)
	}
	return said
}

// isInSync waits for the newest version to be applied, and demands that the secret typed last is in the file.
func (p *reader) isInSync(t *testing.T) {
	t.Helper()
	p.awaitApplied(t, 1)
	if p.secret != "" && !p.holds(t, p.secret) {
		t.Error("the file does not hold the secret that was typed last")
	}
}

// scene is what happens around a block of commands, the first of a page being 1.
type scene struct {
	before func(*testing.T, *reader)
	after  func(t *testing.T, p *reader, said string)
}

var scenes = map[string]map[int]scene{
	"rotate-by-hand.md": {
		1: {after: func(t *testing.T, p *reader, said string) { p.awaitSecret(t) }},
		2: {after: func(t *testing.T, p *reader, said string) {
			if n := strings.Count(said, "in_sync"); n != 2 {
				t.Errorf("%d hosts in sync:\n%s", n, said)
			}
		}},
	},
	"break-glass.md": {
		1: {before: func(t *testing.T, p *reader) { p.proxy.Down() }},
		3: {after: func(t *testing.T, p *reader, said string) {
			if !p.holds(t, p.secret) {
				t.Error("what was set by hand is gone")
			}
			says(t, said, "adopted")
			p.proxy.Up()
		}},
		4: {after: func(t *testing.T, p *reader, said string) { p.awaitSecret(t) }},
	},
}

// awaitSecret waits until the secret typed last is in the file and activated.
func (p *reader) awaitSecret(t *testing.T) {
	t.Helper()
	await(t, "the secret that was typed", patience, func() bool {
		if !p.holds(t, p.secret) {
			p.run(t, "systemctl", "kill", "--kill-whom=main", "--signal=USR1", unit)
			return false
		}
		return true
	})
	p.isInSync(t)
}

func newSecret(p *reader) string {
	secret := "p8e-" + (rand.Text() + rand.Text())[:32]
	p.secrets = append(p.secrets, secret)
	return secret
}
