package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

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
// returns the digest key in it. The directory is there in one step, with its key: of several commands that find none, one makes it, and
// none reads it without a key. Made by root, it belongs to whom Campaign belongs to.
func makeStateDir(c *config.Config) (digestKey []byte, err error) {
	if _, err := os.Stat(c.StateDir); !errors.Is(err, fs.ErrNotExist) {
		return state.Read(c.StateDir).Key(), nil
	}
	parent := filepath.Dir(c.StateDir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	fresh, err := os.MkdirTemp(parent, ".campaign-credsync-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(fresh) // where it was not renamed
	if os.Geteuid() == 0 {
		var home fs.FileInfo
		if home, err = os.Stat(c.Campaign.Home); err == nil {
			err = os.Lchown(fresh, int(ownerOf(home).Uid), int(ownerOf(home).Gid))
		}
	}
	if err == nil {
		err = lockFor(noteTime, fresh)
	}
	if err == nil {
		state.Read(fresh) // which writes the key
		err = os.Rename(fresh, c.StateDir)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) { // another was quicker
		return nil, err
	}
	return state.Read(c.StateDir).Key(), nil
}

// noteTime is more than it takes to write down that a login was refused.
const noteTime = time.Second

// lockFor keeps others from a login, which waits for the lock on the directory, until this one's outcome is on record there.
func lockFor(limit time.Duration, dir string) error {
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	time.AfterFunc(limit, func() { lock.Close() })
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

func ownerOf(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) } // always that on Linux
