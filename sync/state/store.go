// Package state keeps what survives a restart: a record for each instance, and the key of this machine's digests. A state directory
// belongs to one process at a time.
//
// It does not know what a record is for: package sync decides what stands in it, and when it is saved.
package state

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
)

// ErrLocked says that another daemon owns the state directory.
var ErrLocked = errors.New("the state directory is in use by another campaign-credsync; end that one, or give each a state_dir of its own")

const (
	keyFile   = "digest.key"
	keyLength = 32
	maxRecord = 4 << 20 // in bytes; above what 10,000 reverts take
)

// Store keeps records in a directory, one file an instance. Its methods may be called concurrently.
type Store struct {
	dir  string
	lock *os.File // nil when only read
	key  []byte

	mu sync.Mutex // one write at a time, so that a rename never overtakes a newer one
}

// Open takes the state directory for this process alone. A second Open, also of another process, returns ErrLocked until Close. It
// tries for as long as patience: a child that a killed daemon was about to start holds the lock for some milliseconds more. It removes
// what an interrupted write left behind.
func Open(dir string, patience time.Duration) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := checkPrivate(dir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, lock: lock}
	if err = s.takeLock(time.Now().Add(patience)); err == nil {
		err = durable.RemovePartials(dir)
	}
	if err == nil {
		err = s.loadKey()
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("state directory %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) takeLock(until time.Time) error {
	for ; ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if !time.Now().Before(until) {
			return ErrLocked
		}
	}
}

// ErrForeign says that the state directory is another user's, or that others may write there.
var ErrForeign = errors.New("others may change what is remembered in the state directory")

// checkPrivate refuses a directory in which other users could plant records.
func checkPrivate(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, mode := info.Sys().(*syscall.Stat_t).Uid, info.Mode().Perm() // always that on Linux
	switch {
	case mode&0o022 != 0:
		return fmt.Errorf("%w %s (user %d, mode %o): chown it to the daemon's user and chmod go-w it", ErrForeign, dir, owner, mode)
	case owner != 0 && owner != uint32(os.Geteuid()):
		return fmt.Errorf("%w %s, which is user %d's: run this as that user (sudo -u '#%d'), or chown it to the daemon's user",
			ErrForeign, dir, owner, owner)
	}
	return nil
}

// Read opens the state directory for Load only. It takes no lock, and writes nothing but a missing digest key, without which a refused
// secret-id could not be remembered. Where the directory is missing or may not be used, every record is empty and the digest key is
// random.
func Read(dir string) *Store {
	s := &Store{dir: dir}
	_ = s.loadKey() // with an error, there is a key of this process alone
	return s
}

// Close releases the directory that Open took.
func (s *Store) Close() error { return s.lock.Close() }

// Key is the key of this machine's digests: 32 random bytes.
func (s *Store) Key() []byte { return s.key }

// loadKey reads the key. Where there is none, it makes one: digests made with a lost key match nothing, which costs one apply.
func (s *Store) loadKey() (err error) {
	s.key, err = regularfile.Read(filepath.Join(s.dir, keyFile), keyLength)
	if err == nil && len(s.key) == keyLength {
		return nil
	}
	s.key = make([]byte, keyLength)
	rand.Read(s.key) // never fails
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.write(keyFile, s.key)
}

// Load returns the record of an instance, empty when there is none. With an error the record is empty, too: going on with it costs one
// apply.
func (s *Store) Load(instance string) (record Record, err error) {
	path := filepath.Join(s.dir, instance+".json")
	data, err := regularfile.Read(path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return record, nil
	}
	if err == nil {
		record, err = decode(data)
	}
	if err != nil {
		return Record{}, fmt.Errorf("read %s: %w", path, err)
	}
	return record, nil
}

// Save replaces the record of an instance; when it returns nil the record is on disk.
func (s *Store) Save(instance string, r Record) error {
	data, err := r.encode()
	if err == nil {
		err = s.write(instance+".json", data)
	}
	if err != nil {
		return fmt.Errorf("save state of instance %s: %w", instance, err)
	}
	return nil
}

func (s *Store) write(name string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return durable.WriteFile(filepath.Join(s.dir, name), data)
}
