package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"campaign-credsync/internal/config"
	"campaign-credsync/sync/state"
)

// ErrWrongUser says that root may not do what belongs to another user.
var ErrWrongUser = errors.New("run this as that user and not as root")

// checkUser refuses to do as root what belongs to another user: the state, and what nlserver writes below Campaign's home, would be
// root's, and the daemon could not go on with it.
func checkUser(c *config.Config) error {
	home, err := os.Stat(c.Campaign.Home)
	if os.Geteuid() != 0 || err != nil || ownerOf(home).Uid == 0 {
		return nil
	}
	return fmt.Errorf("campaign.home %s belongs to user %d: %w (sudo -u '#%[2]d')", c.Campaign.Home, ownerOf(home).Uid, ErrWrongUser)
}

// makeStateDir makes the state directory where there is none, for a command that remembers a login before the daemon ever ran, and
// returns the digest key in it.
func makeStateDir(c *config.Config) (digestKey []byte, err error) {
	if _, err := os.Stat(c.StateDir); errors.Is(err, fs.ErrNotExist) {
		if err := newStateDir(c); err != nil {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
	}
	return state.Read(c.StateDir).Key(), nil
}

// newStateDir makes the directory with its key in it, in one step: of several commands that find none, one makes it, and none reads it
// without a key. Made by root, it belongs to whom Campaign belongs to.
func newStateDir(c *config.Config) error {
	parent := filepath.Dir(c.StateDir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(parent, ".campaign-credsync-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh) // where it was not renamed
	if os.Geteuid() == 0 {
		home, err := os.Stat(c.Campaign.Home)
		if err != nil {
			return err
		}
		if err := os.Lchown(fresh, int(ownerOf(home).Uid), int(ownerOf(home).Gid)); err != nil {
			return err
		}
	}
	state.Read(fresh) // which writes the key
	if err := os.Rename(fresh, c.StateDir); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil // another was quicker
}

func ownerOf(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) } // always that on Linux
