package assembly

import (
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/filelock"
)

// identifyFiles finds the IDs of the files. One whose directory is missing gets none, and is locked by a reload or the next start.
func (a *assembly) identifyFiles() error {
	instances := a.config.Instances
	for n, i := range instances {
		id, err := filelock.IDOf(i.ConfigFile)
		if err != nil {
			continue
		}
		if other, taken := a.owners[id]; taken { // to each, what the other applies would be drift
			return fmt.Errorf("instances %s and %s have one file under two names (%s, %s): give each its own",
				instances[other].Name, i.Name, instances[other].ConfigFile, i.ConfigFile)
		}
		a.owners[id] = n
	}
	return nil
}

// lockTime is how long a process that holds a lock, and may be about to end, is waited for.
const lockTime = time.Second

// lockFiles locks all files, or none. Locks of before are taken over. It touches no file system, so it does not hang.
func (a *assembly) lockFiles(before *assembly) error {
	began := time.Now()
	for id, n := range a.owners {
		if before.locks[id] != nil {
			a.locks[id] = before.locks[id]
			continue
		}
		lock, err := filelock.Take(id, a.log)
		for errors.Is(err, filelock.ErrLocked) && time.Since(began) < lockTime {
			time.Sleep(5 * time.Millisecond)
			lock, err = filelock.Take(id, a.log)
		}
		if err != nil {
			a.unlockFiles(before)
			return fmt.Errorf("instance %s: %s: %w", a.config.Instances[n].Name, a.config.Instances[n].ConfigFile, err)
		}
		a.locks[id] = lock
	}
	return nil
}

// unlockFiles unlocks what other has not locked too.
func (a *assembly) unlockFiles(other *assembly) {
	for id, lock := range a.locks {
		if other.locks[id] != lock {
			lock.Release()
		}
	}
}
