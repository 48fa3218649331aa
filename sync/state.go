package sync

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	stdsync "sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
)

// Record is what is remembered of an instance over restarts. It holds what the configuration file holds (ciphertext)
// and keyed digests, never a secret. It is a value: slices in it are never changed in place.
type Record struct {
	Version credential.Version `json:"version"` // applied
	// Fields are the names by which the credential was picked from the version; nil in records of old: not known.
	Fields credential.Fields `json:"fields,omitempty"`
	Digest string            `json:"digest"` // of the applied credential, keyed
	// SecretDigest is the same of its secret alone: two secrets are never encrypted alike.
	SecretDigest string                `json:"secret_digest,omitempty"`
	Attributes   credential.Attributes `json:"attributes"` // as they were right after the apply
	AppliedAt    time.Time             `json:"applied_at"`
	// Applying is set before a command that writes is started and cleared with its outcome. Found at start, it says
	// that nobody knows what that command did.
	Applying *credential.Version `json:"applying,omitempty"`

	Activation      []string  `json:"activation,omitempty"` // steps still to be done, in order
	ActivationSince time.Time `json:"activation_since"`
	ActivatedAt     time.Time `json:"activated_at"`

	// RevertOwes is set before drift that the processes may have read is put back, and cleared with the activation that is
	// due then. Found at start, it says that a revert was begun.
	RevertOwes    bool        `json:"revert_owes_activation,omitempty"`
	Reverts       []time.Time `json:"reverts,omitempty"` // those of the last hour
	RevertedTotal int         `json:"reverted_total"`

	unknown durable.Unknown
}

const recordFormat = 1

type recordFile struct {
	Format int `json:"format"`
	Record
}

// ErrLocked says that another daemon owns the state directory.
var ErrLocked = errors.New("the state directory is in use by another campaign-credsync")

// Store keeps records in a directory, one file an instance. Its methods may be called concurrently.
type Store struct {
	dir  string
	lock *os.File // nil when only read
	key  []byte

	mu stdsync.Mutex // one write at a time, so that a rename never overtakes a newer one
}

// OpenStore takes the state directory for this process alone: a second OpenStore answers ErrLocked until Close, also
// from another process, after having waited for patience: a child that a killed daemon was just about to start holds the
// lock for some milliseconds more. It removes what a write that was cut off left behind.
func OpenStore(dir string, patience time.Duration) (*Store, error) {
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
	began := time.Now()
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for errors.Is(err, unix.EWOULDBLOCK) && time.Since(began) < patience {
		time.Sleep(5 * time.Millisecond)
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (%s)", ErrLocked, dir)
		}
		return nil, fmt.Errorf("lock state directory %s: %w", dir, err)
	}
	s := &Store{dir: dir, lock: lock}
	if err := durable.RemovePartials(dir, ours.MatchString); err != nil {
		lock.Close()
		return nil, fmt.Errorf("remove stray files of state directory: %w", err)
	}
	if err := s.loadKey(); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

// ours are the files that the daemon writes in the state directory.
var ours = regexp.MustCompile(`^[A-Za-z0-9_-]+\.(json|key|before)$`)

// checkPrivate refuses a directory in which strangers could plant what the daemon believes.
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

// ReadStore opens the state directory for Load only; it takes no lock and writes nothing but a missing digest key, without
// which a refused secret-id could not be remembered. Without a directory, or without the right to use it, every record
// is empty and the digest key random.
func ReadStore(dir string) *Store {
	s := &Store{dir: dir}
	if _, err := os.Stat(dir); err != nil || s.loadKey() != nil {
		s.key = make([]byte, keyLength)
		rand.Read(s.key)
	}
	return s
}

// Close gives the directory free.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Key is the key of this machine's digests: 32 random bytes.
func (s *Store) Key() []byte { return s.key }

const (
	keyFile   = "digest.key"
	keyLength = 32
)

func (s *Store) loadKey() error {
	path := filepath.Join(s.dir, keyFile)
	key, err := regularfile.Read(path, keyLength)
	if err == nil && len(key) == keyLength {
		s.key = key
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read digest key: %w", err)
	}
	// Absent, or cut off by a crash: digests made with a lost key match nothing, which costs one apply.
	s.key = make([]byte, keyLength)
	rand.Read(s.key)
	return s.write(keyFile, s.key)
}

// maxRecord is above what 10,000 reverts take. In bytes.
const maxRecord = 4 << 20

func recordName(instance string) string { return instance + ".json" }

// Load returns the record of an instance, empty when there is none. A record that cannot be understood is an error and
// empty; going on with the empty one costs one apply.
func (s *Store) Load(instance string) (Record, error) {
	path := filepath.Join(s.dir, recordName(instance))
	data, err := regularfile.Read(path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("read state of instance %s: %w", instance, err)
	}
	record, err := decodeRecord(data)
	if err != nil {
		return Record{}, fmt.Errorf("read state of instance %s from %s: %w", instance, path, err)
	}
	return record, nil
}

// decodeRecord keeps the fields of a newer release: after a downgrade, what is applied is not applied anew.
func decodeRecord(data []byte) (Record, error) {
	var file recordFile
	unknown, err := durable.Decode(data, &file)
	if err != nil {
		return Record{}, err
	}
	if file.Format != recordFormat {
		return Record{}, fmt.Errorf("format %d is not known, only %d", file.Format, recordFormat)
	}
	if !file.Version.IsZero() && len(file.Attributes) == 0 {
		return Record{}, errors.New("an applied version without attributes")
	}
	file.unknown = unknown
	return file.Record, nil
}

func (r Record) encode() ([]byte, error) {
	data, err := r.unknown.Encode(recordFile{recordFormat, r})
	var indented bytes.Buffer
	if err == nil {
		err = json.Indent(&indented, append(data, '\n'), "", "  ")
	}
	return indented.Bytes(), err
}

// Save replaces the record of an instance; when it returns nil the record is on disk.
func (s *Store) Save(instance string, r Record) error {
	data, err := r.encode()
	if err != nil {
		return fmt.Errorf("encode state of instance %s: %w", instance, err)
	}
	if len(data) > maxRecord { // Load would refuse it
		return fmt.Errorf("save state of instance %s: it has more than %d bytes; see what the managed attributes in its configuration file hold",
			instance, maxRecord)
	}
	if err := s.write(recordName(instance), data); err != nil {
		return fmt.Errorf("save state of instance %s: %w", instance, err)
	}
	return nil
}

func (s *Store) write(name string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return durable.WriteFile(filepath.Join(s.dir, name), data)
}

// holds reports whether what is applied was picked from v by fields. Under other names the same version is another credential.
func (r Record) holds(v credential.Version, fields credential.Fields) bool {
	return v.Equal(r.Version) && (len(r.Fields) == 0 || maps.Equal(r.Fields, fields))
}

// applied is the record after an apply: one value, so that version, digest, attributes and the activation that is due
// reach the disk together.
func (r Record) applied(p pending, attributes credential.Attributes, steps []string, now time.Time) Record {
	r.Version, r.Fields, r.Digest, r.SecretDigest = p.version, p.fields, p.digest, p.secretDigest
	r.Attributes, r.AppliedAt = attributes, now
	r.Applying = nil
	return r.activationDue(steps, now)
}

// showsAnother reports whether attributes, though read after an apply of p, are those of another secret: it looked as if
// nlserver had written what somebody else wrote.
func (r Record) showsAnother(p pending, attributes credential.Attributes) bool {
	return r.SecretDigest != "" && r.SecretDigest != p.secretDigest && len(credential.Drift(r.Attributes, attributes)) == 0
}

func (r Record) activationDue(steps []string, now time.Time) Record {
	if len(r.Activation) == 0 {
		r.ActivationSince = now // else it goes on waiting for the time it has been waiting for
	}
	r.Activation, r.RevertOwes = steps, false
	if len(steps) == 0 {
		r.ActivatedAt = now
	}
	return r
}

// activated is the record after one step of activation.
func (r Record) activated(step string, now time.Time) Record {
	r.Activation = slices.DeleteFunc(slices.Clone(r.Activation), func(s string) bool { return s == step })
	if len(r.Activation) == 0 {
		r.ActivatedAt = now
	}
	return r
}

// reverted is the record after a revert.
func (r Record) reverted(now time.Time) Record {
	r.Reverts = append(recentReverts(r.Reverts, now), now)
	r.Reverts = r.Reverts[max(0, len(r.Reverts)-rememberedReverts):]
	r.RevertedTotal++
	return r
}

// rememberedReverts bounds the record, which is written whole: with a greater drift.max_reverts there is no brake.
const rememberedReverts = 10000

// revertWindow is the time over which reverts count for the brake.
const revertWindow = time.Hour

// recentReverts returns a fresh slice of those within the last hour. One that is further than that in the future was
// stamped by a clock that has been set back since; it must not stop reverts for a year.
func recentReverts(reverts []time.Time, now time.Time) []time.Time {
	recent := make([]time.Time, 0, len(reverts)+1)
	for _, t := range reverts {
		if now.Sub(t).Abs() < revertWindow {
			recent = append(recent, t)
		}
	}
	return recent
}
