package assembly

import (
	"context"
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/filelock"
	"campaign-credsync/sync"
)

// lock returns the lock of a configuration file, and notes what it is to hold.
func (a *assembly) lock(file string, before *assembly) *filelock.Lock {
	if a.onlyLooks {
		return nil
	}
	a.locks[file] = before.locks[file]
	if a.locks[file] == nil {
		a.locks[file] = filelock.New(a.log)
	}
	if id, err := filelock.IDOf(file); err == nil {
		a.lockIDs[file] = id
	}
	return a.locks[file]
}

// lockFiles takes the locks of all files, for which it waits a little where another process is about to end. It touches no file system.
// After an error some may be held: see unlockFiles.
func (a *assembly) lockFiles(patience time.Duration) error {
	began := time.Now()
	names := map[filelock.ID]string{}
	for i, file := range a.files {
		id, there := a.lockIDs[file]
		if !there {
			continue // lockedSink does it, when the directory has come
		}
		name := a.instances[i].Name
		if other := names[id]; other != "" { // each would take the other's work for drift
			return fmt.Errorf("instances %s and %s have one file under two names, one is %s: give each its own", other, name, file)
		}
		names[id] = name
		err := a.locks[file].Take(id)
		for errors.Is(err, filelock.ErrLocked) && time.Since(began) < patience {
			time.Sleep(5 * time.Millisecond)
			err = a.locks[file].Take(id)
		}
		if err != nil {
			return fmt.Errorf("instance %s: %s: %w", name, file, err)
		}
	}
	return nil
}

// unlockFiles releases the locks that other, which may be nil, does not need.
func (a *assembly) unlockFiles(other *assembly) {
	for file, lock := range a.locks {
		if other == nil || other.locks[file] == nil {
			lock.Release()
		}
	}
}

// lockedSink locks its file before each write: the directory may have come, or been replaced, since the start.
type lockedSink struct {
	sync.Sink
	file string
	lock *filelock.Lock
}

func (s lockedSink) takeLock() error {
	id, err := filelock.IDOf(s.file)
	if err != nil {
		return nil // without a directory there is nothing to write
	}
	if err := s.lock.Take(id); err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	return nil
}

func (s lockedSink) Recover(ctx context.Context) error {
	if err := s.takeLock(); err != nil {
		return err
	}
	return s.Sink.Recover(ctx)
}

func (s lockedSink) Apply(ctx context.Context, c credential.Credential) (credential.Attributes, time.Duration, error) {
	if err := s.takeLock(); err != nil {
		return nil, 0, err
	}
	return s.Sink.Apply(ctx, c)
}

func (s lockedSink) Restore(ctx context.Context, wanted credential.Attributes) (credential.Attributes, error) {
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	return s.Sink.Restore(ctx, wanted)
}
