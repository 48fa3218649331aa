package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"campaign-credsync/internal/config"
)

// ErrWrongUser says that root may not do what belongs to another user.
var ErrWrongUser = errors.New("run this as that user and not as root")

// checkUser refuses to do as root what belongs to another user: the state, and what nlserver writes below Campaign's
// home, would be root's, and the daemon could not go on with it.
func checkUser(c *config.Config) error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, place := range []struct{ key, path string }{{"state_dir", c.StateDir}, {"campaign.home", c.Campaign.Home}} {
		info, err := os.Stat(place.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", place.key, err)
		}
		owner := info.Sys().(*syscall.Stat_t).Uid // always that on Linux
		if owner == 0 {
			continue
		}
		name := strconv.Itoa(int(owner))
		if known, err := user.LookupId(name); err == nil {
			name = known.Username
		}
		return fmt.Errorf("%s %s belongs to %s: %w (sudo -u %[3]s)", place.key, place.path, name, ErrWrongUser)
	}
	return nil
}
