//go:build systemd

package systemd

import (
	"crypto/rand"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"campaign-credsync/test/pages"
	"campaign-credsync/test/vaulttest"
)

// TestPages does what the documents for operators tell to type, page by page, on a host where nothing is installed yet. Of vault and
// ssh there are stand-ins: vaultcli takes vault's arguments and asks a real Vault, and ssh runs here what it would run elsewhere.
func TestPages(t *testing.T) {
	t.Setenv("VAULT_ADDR", "")
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("VAULT_NAMESPACE", "")
	requireTools(t)
	deb := buildDeb(t, repository(t), "1.0.0")
	p := &reader{host: bootHost(t, vaulttest.Start(t), buildStandin(t), rootFileSystem(t, "sudo", "curl", "jq"))}
	p.proxy = p.vault.Proxy(t)
	copyFile(t, deb, p.path("/root/"+filepath.Base(deb)))
	p.installPrograms(t)
	for _, page := range pages.Operators {
		if !t.Run(page, func(t *testing.T) { p.doPage(t, page) }) {
			t.FailNow() // each begins where the one before ended
		}
	}
}

// reader is who types.
type reader struct {
	*host
	proxy  *vaulttest.Proxy // in front of Vault, for the daemon
	secret string           // the one that was typed last
	told   told
	left   []byte   // Campaign's file before the removal
	here   []string // of a page's examples, and what is here in their place
}

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
	p.write(t, "/usr/local/bin/ssh", ssh, 0o755)
}

// asHere puts what is here in place of a page's examples.
func (p *reader) asHere(text string) string {
	return strings.NewReplacer(append([]string{
		"https://vault.example.com:8200", p.proxy.Address,
		"_amd64.deb", "_" + runtime.GOARCH + ".deb",
	}, p.here...)...).Replace(text)
}

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
	if page != "install.md" && page != "commands.md" { // which say that
		s.export(t, "CREDENTIALS_DIRECTORY", "/run/credentials/"+unit)
	}
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
			if !b.RunElsewhere(command) {
				said += p.do(t, s, b, p.asHere(command))
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
	makesRole  = regexp.MustCompile(`^vault read -field=role_id`)
)

// mayWarn are commands whose exit status 3 is fine.
var mayWarn = regexp.MustCompile(`campaign-credsync doctor`)

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
	if mayWarn.MatchString(trimmed) {
		command = "set +e\n" + strings.TrimRight(command, "\n") + "\n[ $? = 0 -o $? = 3 ] && set -e || exit 1\n"
	}
	said, ended := s.run(t, command)
	if !ended {
		t.Fatalf("%v: %s\nfails:\n%s", b, command, said)
	}
	if makesRole.MatchString(trimmed) {
		p.roleID = strings.TrimSpace(said)
		p.here = append(p.here, "00000000-0000-0000-0000-000000000000", p.roleID, "ROLE_ID", p.roleID)
	}
	return said
}

func newSecret(p *reader) string {
	secret := "p8e-" + (rand.Text() + rand.Text())[:32]
	p.secrets = append(p.secrets, secret)
	return secret
}
