package compatibility_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// place is a container with the instances of the releases.
type place struct {
	*world.World
	credentials string // directory of those that have their credential in a file
}

// newPlace makes it for an executable of the daemon; empty: that of this code.
func newPlace(t *testing.T, daemon string) *place {
	t.Helper()
	credentials, err := os.MkdirTemp("", "credsync-credentials-") // none of the daemon's, and may hold secrets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(credentials) })
	options := container.Options{Instances: instances, Secrets: map[string]string{}}
	for name, file := range map[string]string{"prod": "prod", "file": "file", "away": "file"} {
		options.Secrets[name] = "source: file, file: " + filepath.Join(credentials, file+".json")
	}
	if daemon != "" {
		options.Programs = world.Plain()
		options.Programs.Daemon, options.Programs.Command = daemon, daemon
	}
	p := &place{World: world.New(t, options), credentials: credentials}
	p.Secrets = append(p.Secrets, handSecret, vaultSecret, fileSecret)
	p.WriteSecret("vault", container.Credential(vaultSecret))
	return p
}

func (p *place) credential(secret string) []byte {
	text, err := json.Marshal(container.Credential(secret))
	p.Must(err)
	return text
}

// names are what differs from run to run, and what stands for it in testdata, in pairs.
func (p *place) names() []string {
	host, err := os.Hostname()
	p.Must(err)
	return []string{
		p.credentials, "@CREDENTIALS@", p.Dir, "@DIR@", p.Proxy.Address, "@VAULT@", p.Vault.Mount + "/" + p.SecretPath("vault"), "@SECRET@",
		p.SecretPath("vault"), "@PATH@", "mount: " + p.Vault.AuthMount + ",", "mount: @AUTH@,", "mount: " + p.Vault.Mount + ",", "mount: @MOUNT@,",
		p.RoleID, "@ROLE@", `"host":"` + host + `"`, `"host":"@HOST@"`,
	}
}

// general is a text with the names of testdata, own one with those of this place.
func (p *place) general(text []byte) []byte {
	return []byte(strings.NewReplacer(p.names()...).Replace(string(text)))
}

func (p *place) own(text []byte) []byte {
	pairs := p.names()
	for i := 0; i < len(pairs); i += 2 {
		pairs[i], pairs[i+1] = pairs[i+1], pairs[i]
	}
	return []byte(strings.NewReplacer(pairs...).Replace(string(text)))
}

// pauseTimes are those of a pause that is on record.
var pauseTimes = regexp.MustCompile(`("paused": {\s*"since": )"[^"]*"(,\s*"until": )"[^"]*"`)

// restore puts in place what the daemon of a release had. A pause begins now: it goes on during the test.
func (p *place) restore(release string) {
	p.T.Helper()
	now := time.Now()
	paused := fmt.Appendf(nil, "${1}%q${2}%q", now.Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339))
	for from, to := range map[string]string{"credentials": p.credentials, "state": p.StateDir(), "nl6/conf": filepath.Join(p.Home, "conf")} {
		entries, err := os.ReadDir(filepath.Join(release, from))
		p.Must(err)
		for _, e := range entries {
			content := read(p.T, release, from, e.Name())
			if e.Name() != "digest.key" {
				content = pauseTimes.ReplaceAll(p.own(content), paused)
			}
			write(p.T, content, to, e.Name())
		}
	}
	for _, name := range p.Instances {
		p.Foreign[name] = world.ForeignBytes(p.Read(name))
	}
	write(p.T, p.own(read(p.T, release, "config.yaml")), p.Config)
}
