package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/durable"
)

// Record is what is remembered of an instance. It holds what the configuration file holds (ciphertext) and keyed digests, never
// a secret. It is a value: its slices are replaced, never changed in place. Names of its fields in JSON never change, as an older
// release reads them, too.
type Record struct {
	Version credential.Version `json:"version"` // applied
	// Fields are the names by which the credential was picked from the version. Empty in old records: not known.
	Fields credential.Fields `json:"fields,omitempty"`
	Digest string            `json:"digest"` // of the applied credential, keyed
	// SecretDigest is the keyed digest of its secret alone: two secrets are never encrypted alike.
	SecretDigest string                `json:"secret_digest,omitempty"`
	Attributes   credential.Attributes `json:"attributes"` // as they were right after the apply
	AppliedAt    time.Time             `json:"applied_at"`

	// What was about to be done to the configuration file when the record was written; found at a start, its outcome is not known.
	// Applying is the version that a command was about to write. RevertOwesActivation is for drift that was about to be reverted and
	// that Campaign's processes may have read.
	Applying             *credential.Version `json:"applying,omitempty"`
	RevertOwesActivation bool                `json:"revert_owes_activation,omitempty"`

	Activation      []credential.Step `json:"activation,omitempty"` // steps still to be done, in order
	ActivationSince time.Time         `json:"activation_since"`
	ActivatedAt     time.Time         `json:"activated_at"`

	Reverts       []time.Time `json:"reverts,omitempty"` // those of the last hour
	RevertedTotal int         `json:"reverted_total"`

	unknown durable.Unknown
}

const recordFormat = 1

// recordFile is a record as it is stored.
type recordFile struct {
	Format int `json:"format"`
	storedRecord
}

type storedRecord Record // without its methods

// UnmarshalJSON keeps the fields of a newer release: after a downgrade, what is applied is not applied anew.
func (r *Record) UnmarshalJSON(data []byte) error {
	var file recordFile
	unknown, err := durable.Decode(data, &file)
	if err != nil {
		return err
	}
	if file.Format != recordFormat {
		return fmt.Errorf("format %d is not known, only %d", file.Format, recordFormat)
	}
	if !file.Version.IsZero() && len(file.Attributes) == 0 {
		return errors.New("an applied version without attributes")
	}
	*r = Record(file.storedRecord)
	r.unknown = unknown
	return nil
}

// MarshalJSON writes back the fields of a newer release.
func (r Record) MarshalJSON() ([]byte, error) {
	return r.unknown.Encode(recordFile{recordFormat, storedRecord(r)})
}

func (r Record) encode() ([]byte, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	return append(data, '\n'), err
}
