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
	"regexp"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
)

// ErrLocked says that another daemon owns the state directory.
var ErrLocked = errors.New("the state directory is in use by another campaign-credsync")

const (
	keyFile   = "digest.key"
	keyLength = 32
	maxRecord = 4 << 20 // in bytes; above what 10,000 reverts take
)

// ours matches the names of files that the daemon writes in the state directory.
var ours = regexp.MustCompile(`^[A-Za-z0-9_-]+\.(json|key|before)$`)

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
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	if err := checkPrivate(dir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of state directory: %w", err)
	}
	s := &Store{dir: dir, lock: lock}
	began := time.Now()
	for err = s.takeLock(); errors.Is(err, ErrLocked) && time.Since(began) < patience; err = s.takeLock() {
		time.Sleep(5 * time.Millisecond)
	}
	if err == nil {
		err = durable.RemovePartials(dir, ours.MatchString)
	}
	if err == nil {
		err = s.loadKey()
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) takeLock() error {
	switch err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("%w (%s)", ErrLocked, s.dir)
	case err != nil:
		return fmt.Errorf("lock state directory %s: %w", s.dir, err)
	}
	return nil
}

// checkPrivate refuses a directory in which other users could plant records.
func checkPrivate(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("check state directory: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid // always that on Linux
	switch {
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("the state directory %s may be written by others (mode %o): chmod go-w it", dir, info.Mode().Perm())
	case owner != 0 && owner != uint32(os.Geteuid()):
		return fmt.Errorf("the state directory %s belongs to user %d, who could change what is remembered there: chown it to the daemon's user",
			dir, owner)
	}
	return nil
}

// Read opens the state directory for Load only. It takes no lock, and writes nothing but a missing digest key, without which a refused
// secret-id could not be remembered. Where the directory is missing or may not be used, every record is empty and the digest key is
// random.
func Read(dir string) *Store {
	s := &Store{dir: dir}
	if _, err := os.Stat(dir); err != nil || s.loadKey() != nil {
		s.key = newKey()
	}
	return s
}

// Close releases the directory.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Key is the key of this machine's digests: 32 random bytes.
func (s *Store) Key() []byte { return s.key }

func (s *Store) loadKey() (err error) {
	s.key, err = regularfile.Read(filepath.Join(s.dir, keyFile), keyLength)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read digest key: %w", err)
	}
	if len(s.key) == keyLength {
		return nil
	}
	// Absent, or cut off by a crash: digests made with a lost key match nothing, which costs one apply.
	s.key = newKey()
	return s.write(keyFile, s.key)
}

func newKey() []byte {
	key := make([]byte, keyLength)
	rand.Read(key) // never fails
	return key
}

func recordName(instance string) string { return instance + ".json" }

// Load returns the record of an instance, empty when there is none. With an error the record is empty, too: going on with it costs one
// apply.
func (s *Store) Load(instance string) (Record, error) {
	path := filepath.Join(s.dir, recordName(instance))
	data, err := regularfile.Read(path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	var record Record
	if err == nil {
		if err = record.UnmarshalJSON(data); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	if err != nil {
		return Record{}, fmt.Errorf("read state of instance %s: %w", instance, err)
	}
	return record, nil
}

// Save replaces the record of an instance; when it returns nil the record is on disk.
func (s *Store) Save(instance string, r Record) error {
	data, err := r.encode()
	if err == nil && len(data) > maxRecord { // Load would refuse it
		err = fmt.Errorf("it has more than %d bytes; see what the managed attributes in its configuration file hold", maxRecord)
	}
	if err == nil {
		err = s.write(recordName(instance), data)
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
