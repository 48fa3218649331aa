// Package container sets up what a Campaign container has, in one directory: a Campaign home with the stand-in of
// nlserver, a real Vault with an AppRole and a secret per instance, and the daemon as a process of its own. The demo, the
// benchmarks and the end-to-end tests use it; it drives everything from outside and links nothing of the daemon.
package container

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"campaign-credsync/sources/vaulttest"
)

// Container is a Campaign container. Its methods may be called concurrently, unless they say otherwise.
type Container struct {
	Dir       string // everything is below it
	Home      string // of Campaign
	Config    string // the daemon's configuration file
	Instances []string
	Vault     *vaulttest.Server
	Proxy     *vaulttest.Proxy // the daemon's way to Vault

	daemon, nlserver string // executables
}

// Options say what is wanted.
type Options struct {
	Instances []string
	Settings  string    // YAML that is added to the daemon's configuration
	Progress  io.Writer // hears of a long build
}

// New sets up a container below dir. ctx bounds the setting up. The caller must Close it, and removes dir.
func New(ctx context.Context, dir string, options Options) (c *Container, err error) {
	c = &Container{Dir: dir, Home: filepath.Join(dir, "nl6"), Config: filepath.Join(dir, "config.yaml"), Instances: options.Instances}
	if err := c.build(ctx); err != nil {
		return nil, err
	}
	if c.Vault, err = vaulttest.Launch(ctx, options.Progress); err != nil {
		return nil, err
	}
	if c.Proxy, err = vaulttest.NewProxy(c.Vault.Address, nil); err != nil {
		return nil, errors.Join(err, c.Vault.Close())
	}
	if err := c.layOut(ctx, options.Settings); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends Vault. Daemons end with their Stop.
func (c *Container) Close() error {
	c.Proxy.Close()
	return c.Vault.Close()
}

// build builds the daemon and the stand-in; the compiler's cache makes the second time quick.
func (c *Container) build(ctx context.Context) error {
	bin := filepath.Join(c.Dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	c.daemon, c.nlserver = filepath.Join(bin, "campaign-credsync"), filepath.Join(bin, "nlserver-standin")
	if built := os.Getenv("CREDSYNC_BINARY"); built != "" {
		c.daemon = built
	}
	for binary, source := range map[string]string{c.daemon: "cmd/campaign-credsync", c.nlserver: "test/nlserver"} {
		if binary == os.Getenv("CREDSYNC_BINARY") {
			continue
		}
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./"+source)
		build.Dir = repository()
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", source, err, out)
		}
	}
	return nil
}

func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// SecretPath is the path of an instance's secret below the mount.
func SecretPath(instance string) string { return "campaign/" + instance + "/oauth" }

func (c *Container) layOut(ctx context.Context, settings string) error {
	if err := c.standin(ctx, "--standin-layout", c.Home); err != nil {
		return err
	}
	var policy, instances strings.Builder
	for _, name := range c.Instances {
		if err := c.standin(ctx, "--standin-instance", c.Home, name); err != nil {
			return err
		}
		policy.WriteString(c.Vault.ReadPolicy(SecretPath(name)) + "\n")
		fmt.Fprintf(&instances, "  - {name: %s, mount: %s, path: %s}\n", name, c.Vault.Mount, SecretPath(name))
	}
	roleID, secretID, err := c.Vault.Role(ctx, policy.String(), 0)
	if err != nil {
		return fmt.Errorf("make an AppRole: %w", err)
	}
	secretIDFile := filepath.Join(c.Dir, "secret_id")
	if err := os.WriteFile(secretIDFile, []byte(secretID+"\n"), 0o600); err != nil {
		return err
	}
	text := fmt.Sprintf(`vault:
  address: %s
  auth: {method: approle, mount: %s, role_id: %s, secret_id_file: %s}
campaign: {home: %s}
instances:
%sstate_dir: %s
control_socket: %s
%s`, c.Proxy.Address, c.Vault.AuthMount, roleID, secretIDFile, c.Home, instances.String(), c.StateDir(), c.socket(), settings)
	return os.WriteFile(c.Config, []byte(text), 0o600)
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

// Rotate writes a new credential for an instance to Vault and returns its version and secret.
func (c *Container) Rotate(ctx context.Context, instance string) (version int, secret string, err error) {
	secret = "p8e-" + (rand.Text() + rand.Text())[:32]
	version, err = c.Vault.Write(ctx, SecretPath(instance), Credential(secret))
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

// Attribute reads an attribute of <ims> in <shared> as an XML parser does, or returns "" when there is none.
func Attribute(document []byte, name string) (string, error) {
	var file struct {
		IMS struct {
			Attributes []xml.Attr `xml:",any,attr"`
		} `xml:"shared>ims"`
	}
	if err := xml.Unmarshal(document, &file); err != nil {
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
	out, err := exec.CommandContext(ctx, c.nlserver, "--standin-decrypt", value).Output()
	if err != nil {
		return "", fmt.Errorf("decrypt what is on disk: %w", err)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// Run is a line of the stand-in's log.
type Run struct {
	PID        int    `json:"pid"`
	Event      string `json:"event"` // start, waiting, child, end
	Kind       string `json:"kind"`  // set, reload, restart, help
	Instance   string `json:"instance"`
	EnvOK      bool   `json:"env_ok"`
	DurationUS int64  `json:"duration_us"`
}

// Runs returns the stand-in's log.
func (c *Container) Runs() ([]Run, error) {
	data, err := os.ReadFile(filepath.Join(c.Home, "var", "standin", "runs.jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var runs []Run
	for line := range strings.Lines(string(data)) {
		var r Run
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("log of the stand-in: %w", err)
		}
		runs = append(runs, r)
	}
	return runs, nil
}

// Ended counts the runs of a kind that have come to their end.
func (c *Container) Ended(kind string) (int, error) {
	runs, err := c.Runs()
	n := 0
	for _, r := range runs {
		if r.Event == "end" && r.Kind == kind {
			n++
		}
	}
	return n, err
}
