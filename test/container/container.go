// Package container sets up what a Campaign container has, in one directory: a Campaign home with the stand-in of
// nlserver, a real Vault with an AppRole and a secret per instance, and the daemon as a process of its own. The demo, the
// benchmarks and the end-to-end tests use it; it drives everything from outside and links nothing of the daemon.
package container

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/text/encoding/charmap"

	"campaign-credsync/test/vaulttest"
)

// Container is a Campaign container. Its methods may be called concurrently, unless they say otherwise.
type Container struct {
	Dir       string // everything is below it
	Home      string // of Campaign
	Config    string // the daemon's configuration file
	Instances []string
	Vault     *vaulttest.Server // nil: there is none
	Proxy     *vaulttest.Proxy  // the daemon's way to Vault; nil without one
	RoleID    string            // of the daemon's AppRole
	SecretID  string            // file that holds the secret-id

	daemon, command, nlserver string // executables
	options                   Options
	prefix                    string // of secrets' paths, where Vault is shared

	decrypted *sync.Map // secrets, by the value of the attribute
	runs      *runLog
}

// Options say what is wanted.
type Options struct {
	Instances []string
	Settings  string            // YAML that is added to the daemon's configuration
	Campaign  string            // YAML that is added to its campaign section, in flow style: "timeout: 2s"
	Extra     map[string]string // by instance: YAML that is added to its entry, in flow style: "allow_rollback: true"
	Secrets   map[string]string // by instance: YAML that says where its secret is, in flow style: "source: file, file: /x"
	NoVault   bool              // leaves out the vault section, and starts no Vault
	Outside   bool              // activation goes through the activation socket; see ServeActivation
	Progress  io.Writer         // hears of a long build
	Push      bool              // Vault pushes events, and the role may have them; with a Vault given, that one must

	Programs Programs          // those that are built already
	Vault    *vaulttest.Server // shared with other containers; the container does not end it
	Beside   *Container        // in the same Vault: shares its role and its secrets, with a secret-id of its own
	TokenTTL time.Duration     // of the tokens that a login gives; 0: Vault's default
	Login    string            // YAML of vault.auth, in flow style, in place of that for the AppRole
	User     int               // the daemon's user and group id, and the owner of everything; 0: who runs this
}

// New sets up a container below dir. ctx bounds the setting up. The caller must Close it, and removes dir.
func New(ctx context.Context, dir string, options Options) (c *Container, err error) {
	c = &Container{
		Dir: dir, Home: filepath.Join(dir, "nl6"), Config: filepath.Join(dir, "config.yaml"),
		SecretID: filepath.Join(dir, "secret_id"), Instances: options.Instances, options: options,
		decrypted: &sync.Map{}, runs: &runLog{},
	}
	programs := options.Programs
	if programs == (Programs{}) {
		if programs, err = Build(ctx, filepath.Join(dir, "bin"), false); err != nil {
			return nil, err
		}
	}
	c.daemon, c.command, c.nlserver = programs.Daemon, programs.Command, programs.NLServer
	if c.Vault = options.Vault; c.Vault != nil {
		c.prefix = strings.ToLower(rand.Text()[:10]) + "/"
		if options.Beside != nil {
			c.prefix = options.Beside.prefix
		}
	} else if !options.NoVault {
		if c.Vault, err = options.launch(ctx); err != nil {
			return nil, err
		}
	}
	if c.Vault != nil {
		if c.Proxy, err = vaulttest.NewProxy(c.Vault.Address, nil); err != nil {
			return nil, errors.Join(err, c.closeVault())
		}
	}
	if err := c.layOut(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (o Options) launch(ctx context.Context) (*vaulttest.Server, error) {
	if o.Push {
		return vaulttest.LaunchEvents(ctx, o.Progress)
	}
	return vaulttest.Launch(ctx, o.Progress)
}

// Close ends Vault, unless it is shared. Daemons end with their Stop.
func (c *Container) Close() error {
	if c.Proxy != nil {
		c.Proxy.Close()
	}
	return c.closeVault()
}

func (c *Container) closeVault() error {
	if c.Vault == nil || c.options.Vault != nil {
		return nil
	}
	return c.Vault.Close()
}

// SecretPath is the path of an instance's secret below the mount, where the container has a Vault of its own.
func SecretPath(instance string) string { return "campaign/" + instance + "/oauth" }

// SecretPath is the path of an instance's secret below the mount.
func (c *Container) SecretPath(instance string) string { return c.prefix + SecretPath(instance) }

func (c *Container) layOut(ctx context.Context) error {
	if err := c.standin(ctx, "--standin-layout", c.Home); err != nil {
		return err
	}
	if c.Vault != nil {
		if err := c.makeRole(ctx); err != nil {
			return err
		}
	}
	if err := c.Reconfigure(ctx, func(*Options) {}); err != nil {
		return err
	}
	return c.handOver()
}

// makeRole makes what the daemon logs in with.
func (c *Container) makeRole(ctx context.Context) (err error) {
	var secretID string
	// One policy for every instance, also those that are added later.
	policy := c.Vault.ReadPolicy(c.SecretPath("+"))
	if c.options.Push {
		policy = c.Vault.PushPolicy(c.SecretPath("+"))
	}
	if c.options.Beside != nil {
		c.RoleID = c.options.Beside.RoleID
		secretID, err = c.Vault.SecretID(ctx, c.RoleID)
	} else {
		c.RoleID, secretID, err = c.Vault.Role(ctx, policy, c.options.TokenTTL)
	}
	if err != nil {
		return fmt.Errorf("make an AppRole: %w", err)
	}
	return os.WriteFile(c.SecretID, []byte(secretID+"\n"), 0o600)
}

// StateDir is the daemon's.
func (c *Container) StateDir() string { return filepath.Join(c.Dir, "state") }

func (c *Container) socket() string { return filepath.Join(c.Dir, "control.sock") }

// File is the configuration file of an instance.
func (c *Container) File(instance string) string {
	return filepath.Join(c.Home, "conf", "config-"+instance+".xml")
}

func (c *Container) standin(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, c.nlserver, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("stand-in %s: %w: %s", args[0], err, out)
	}
	return nil
}

// SetFaults sets the fault switches of the stand-in, given as JSON; empty for none.
func (c *Container) SetFaults(ctx context.Context, faults string) error {
	args := []string{"--standin-faults", c.Home}
	if faults != "" {
		args = append(args, faults)
	}
	return c.standin(ctx, args...)
}

// SetAssumptions has the stand-in behave as a JSON text says: assumptions, or a report of a survey; empty: as it is built.
func (c *Container) SetAssumptions(ctx context.Context, text string) error {
	if text == "" {
		return c.standin(ctx, "--standin-assumptions", c.Home)
	}
	file := filepath.Join(c.Dir, "assumptions.json")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	defer os.Remove(file)
	return c.standin(ctx, "--standin-assumptions", c.Home, file)
}

// Release ends the waits of the stand-in's runs, those under way and all that come before faults are set again.
func (c *Container) Release() error {
	return os.WriteFile(filepath.Join(c.Home, "var", "standin", "released"), nil, 0o644)
}

// Rotate writes a new credential for an instance to Vault and returns its version and secret.
func (c *Container) Rotate(ctx context.Context, instance string) (version int, secret string, err error) {
	secret = "p8e-" + (rand.Text() + rand.Text())[:32]
	version, err = c.Vault.Write(ctx, c.SecretPath(instance), Credential(secret))
	return version, secret, err
}

// Credential is what Rotate writes.
func Credential(secret string) map[string]any {
	return map[string]any{
		"ims_org_id":           "0123456789ABCDEF01234567@AdobeOrg",
		"client_id":            "0123456789abcdef0123456789abcdef",
		"technical_account_id": "0123456789ABCDEF@techacct.adobe.com",
		"client_secret":        secret,
	}
}

var declaredEntity = regexp.MustCompile(`<!ENTITY\s+(\S+)\s+"([^"]*)"\s*>`)

// Decoder reads a document with the entities that it declares, in UTF-8 or ISO-8859-15.
func Decoder(document []byte) *xml.Decoder {
	decoder := xml.NewDecoder(bytes.NewReader(document))
	decoder.Entity = map[string]string{}
	decoder.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		if !strings.EqualFold(charset, "ISO-8859-15") {
			return nil, fmt.Errorf("no test has a file in %s", charset)
		}
		return charmap.ISO8859_15.NewDecoder().Reader(in), nil
	}
	for _, entity := range declaredEntity.FindAllSubmatch(document, -1) {
		decoder.Entity[string(entity[1])] = string(entity[2])
	}
	return decoder
}

// Attribute reads an attribute of <ims> in <shared> as an XML parser does, or returns "" when there is none.
func Attribute(document []byte, name string) (string, error) {
	var file struct {
		IMS struct {
			Attributes []xml.Attr `xml:",any,attr"`
		} `xml:"shared>ims"`
	}
	if err := Decoder(document).Decode(&file); err != nil {
		return "", err
	}
	for _, a := range file.IMS.Attributes {
		if a.Name.Local == name {
			return a.Value, nil
		}
	}
	return "", nil
}

// SecretOnDisk decrypts what the instance's configuration file holds, or returns "" when there is none.
func (c *Container) SecretOnDisk(ctx context.Context, instance string) (string, error) {
	document, err := os.ReadFile(c.File(instance))
	if err != nil {
		return "", err
	}
	value, err := Attribute(document, "authIMSTAClientSecret")
	if err != nil || value == "" {
		return "", err
	}
	// Who waits asks again and again, and decrypting takes a process.
	if secret, known := c.decrypted.Load(value); known {
		return secret.(string), nil
	}
	out, err := exec.CommandContext(ctx, c.nlserver, "--standin-decrypt", value).Output()
	if err != nil {
		return "", fmt.Errorf("decrypt what is on disk: %w", err)
	}
	secret := strings.TrimSuffix(string(out), "\n")
	c.decrypted.Store(value, secret)
	return secret, nil
}
