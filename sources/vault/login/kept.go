package login

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/regularfile"
)

// keptFile ends like no file of an instance.
const keptFile = "secret-id.key"

// keptIDs keeps the secret-id that was unwrapped, as that works only once: encrypted with a key that systemd-creds has
// sealed, or, where that cannot be had, as it is, readable for this user only. Not safe for concurrent use.
type keptIDs struct {
	dir string

	unsaved *keptRecord       // what could not be written yet
	opened  string            // From of the entry that was opened last
	plain   credential.Secret // its secret-id
}

// keptRecord is the file.
type keptRecord struct {
	Current *keptID `json:"current,omitempty"`
	// Unwrapping is the digest of a wrapping token that was about to be unwrapped: if it is spent, that may have been us.
	Unwrapping string `json:"unwrapping,omitempty"`
	// Previous was kept by releases before until Current was accepted. It goes with the next Current.
	Previous json.RawMessage `json:"previous,omitempty"`

	unknown durable.Unknown
}

// UnmarshalJSON and MarshalJSON keep the fields of a newer release.
func (r *keptRecord) UnmarshalJSON(object []byte) (err error) {
	type plain keptRecord
	r.unknown, err = durable.Decode(object, (*plain)(r))
	return err
}

func (r *keptRecord) MarshalJSON() ([]byte, error) {
	type plain keptRecord
	return r.unknown.Encode((*plain)(r))
}

// keptID is one secret-id.
type keptID struct {
	From  string `json:"from"`                 // keyed digest of the wrapping token it came out of
	Key   string `json:"sealed_key,omitempty"` // by systemd-creds; empty: nothing is encrypted
	User  bool   `json:"sealed_for_user,omitempty"`
	Box   []byte `json:"box,omitempty"`       // the secret-id by AES-256-GCM under that key, its nonce in front
	Plain string `json:"secret_id,omitempty"` // the secret-id where there is no key

	unknown durable.Unknown
}

// UnmarshalJSON and MarshalJSON keep the fields of a newer release.
func (id *keptID) UnmarshalJSON(object []byte) (err error) {
	type plain keptID
	id.unknown, err = durable.Decode(object, (*plain)(id))
	return err
}

func (id *keptID) MarshalJSON() ([]byte, error) {
	type plain keptID
	return id.unknown.Encode((*plain)(id))
}

// load returns what is kept; a file that is not there, or does not parse, holds nothing. One that cannot be read is an
// error: it may hold the only copy.
func (k *keptIDs) load() (*keptRecord, error) {
	if k.unsaved != nil && k.save(k.unsaved) != nil {
		return k.unsaved, nil
	}
	content, err := regularfile.Read(filepath.Join(k.dir, keptFile), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return &keptRecord{}, nil
	}
	if err != nil {
		return nil, credential.NeedsOperator(fmt.Errorf("vault login: read the kept secret-id: %w; let this user read it", err))
	}
	record := &keptRecord{}
	if json.Unmarshal(content, record) != nil {
		return &keptRecord{}, nil
	}
	return record, nil
}

// maxRecord bounds the file in bytes.
const maxRecord = 1 << 20

func (k *keptIDs) save(record *keptRecord) error {
	content, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(k.dir, keptFile), append(content, '\n')); err != nil {
		return err
	}
	k.unsaved = nil // what is newer, or the same, is on disk
	return nil
}

// reserve does beforehand all that keeping a secret-id may fail at: it has a key sealed, and notes that digest is about to
// be unwrapped, which proves that the directory takes a file. unsealed says why there is no sealed key. When ctx is done it
// notes nothing, and its error is that of ctx: whatever was cut off has not shown that nothing here can seal.
func (k *keptIDs) reserve(ctx context.Context, record *keptRecord, digest string) (key sealedKey, unsealed, err error) {
	key, unsealed = newSealedKey(ctx)
	if ctx.Err() != nil {
		return sealedKey{}, nil, ctx.Err()
	}
	noted := *record
	noted.Unwrapping = digest
	return key, unsealed, k.save(&noted)
}

// put keeps id as the current one. On an error it is in memory, and written by a later load.
func (k *keptIDs) put(record *keptRecord, key sealedKey, digest, id string) error {
	entry := &keptID{From: digest, Plain: id}
	if key.sealed != "" {
		entry = &keptID{From: digest, Key: key.sealed, User: key.user, Box: box(key.key).Seal(nil, nil, []byte(id), []byte(digest))}
	}
	k.opened, k.plain = digest, credential.NewSecret(id)
	next := &keptRecord{Current: entry, unknown: record.unknown}
	err := k.save(next)
	if err != nil {
		k.unsaved = next
	}
	return err
}

// open returns the secret-id of an entry.
func (k *keptIDs) open(ctx context.Context, entry *keptID) (credential.Secret, error) {
	if entry.From == k.opened {
		return k.plain, nil
	}
	id := entry.Plain
	if entry.Key != "" {
		key, err := sealedKey{sealed: entry.Key, user: entry.User}.open(ctx)
		if err != nil {
			return credential.Secret{}, err
		}
		if len(key) != keySize {
			return credential.Secret{}, errDamaged
		}
		plain, err := box(key).Open(nil, nil, entry.Box, []byte(entry.From))
		if err != nil {
			return credential.Secret{}, errDamaged
		}
		id = string(plain)
	}
	k.opened, k.plain = entry.From, credential.NewSecret(id)
	return k.plain, nil
}

var errDamaged = errors.New("what is kept is damaged")

// box encrypts under a key of keySize bytes, with a random nonce that it puts in front.
func box(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the size is right
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // AES has the block size that it needs
	}
	return aead
}
