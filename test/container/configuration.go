package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Reconfigure changes Instances, Settings, Campaign, Login, Extra, Secrets or NoVault and writes the daemon's configuration anew; SIGHUP makes a
// running daemon read it. Instances that have no file get one. Not to be called concurrently.
func (c *Container) Reconfigure(ctx context.Context, change func(*Options)) error {
	change(&c.options)
	c.Instances = c.options.Instances
	var instances strings.Builder
	for _, name := range c.Instances {
		if _, err := os.Lstat(c.File(name)); errors.Is(err, os.ErrNotExist) {
			if err := c.standin(ctx, "--standin-instance", c.Home, name); err != nil {
				return err
			}
		}
		where := c.options.Secrets[name]
		if where == "" {
			where = fmt.Sprintf("mount: %s, path: %s", c.Vault.Mount, c.SecretPath(name))
		}
		fmt.Fprintf(&instances, "  - {name: %s, %s%s}\n", name, where, also(c.options.Extra[name]))
	}
	vault := ""
	if !c.options.NoVault {
		vault = fmt.Sprintf(`vault:
  address: %s
  auth: {%s}
`, c.Proxy.Address, c.login())
	}
	text := vault + fmt.Sprintf(`campaign: {home: %s%s}
instances:
%sstate_dir: %s
control_socket: %s
%s`, c.Home, also(c.campaign()), instances.String(), c.StateDir(), c.socket(), c.options.Settings)
	return os.WriteFile(c.Config, []byte(text), 0o600)
}

// AppRole is the YAML of vault.auth for the container's role, in flow style.
func (c *Container) AppRole() string {
	return fmt.Sprintf("method: approle, mount: %s, role_id: %s, secret_id_file: %s", c.Vault.AuthMount, c.RoleID, c.SecretID)
}

func (c *Container) login() string {
	if c.options.Login != "" {
		return c.options.Login
	}
	return c.AppRole()
}

func also(flow string) string {
	if flow == "" {
		return ""
	}
	return ", " + flow
}

// handOver makes the daemon's user the owner of everything.
func (c *Container) handOver() error {
	if c.options.User == 0 {
		return nil
	}
	return filepath.WalkDir(c.Dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, c.options.User, c.options.User)
	})
}
