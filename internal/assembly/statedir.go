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

// makeStateDir makes the state directory for a command that has to remember something before the daemon ever ran, and
// returns the digest key that belongs to it. Made by root, it belongs to whom Campaign belongs to, as the daemon's does.
func makeStateDir(c *config.Config) (digestKey []byte, err error) {
	if _, err := os.Stat(c.StateDir); errors.Is(err, fs.ErrNotExist) {
		if err := newStateDir(c); err != nil {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
	}
	return state.Read(c.StateDir).Key(), nil
}

// newStateDir makes the directory with its key in it, in one step: of several commands that find none, one makes it, and
// none reads it without a key.
func newStateDir(c *config.Config) error {
	parent := filepath.Dir(c.StateDir)
	var missing []string // the innermost first
	for dir := parent; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break // whatever it is, Mkdir says it better
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := giveToCampaign(c, missing[i]); err != nil {
			return err
		}
	}
	fresh, err := os.MkdirTemp(parent, ".campaign-credsync-")
	if err != nil {
		return err
	}
	if err = giveToCampaign(c, fresh); err == nil {
		state.Read(fresh) // which writes the key
		err = os.Rename(fresh, c.StateDir)
	}
	if err != nil {
		os.RemoveAll(fresh)
	}
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return nil // another was quicker
	}
	return err
}

func giveToCampaign(c *config.Config, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(c.Campaign.Home)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t) // always that on Linux
	return os.Lchown(dir, int(owner.Uid), int(owner.Gid))
}
