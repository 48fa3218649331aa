package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/durable"
)

// Record is what is remembered of an instance. It holds what the configuration file holds (ciphertext) and keyed digests, never
// a secret. It is a value: its slices are replaced, never changed in place.
type Record struct {
	Version credential.Version `json:"version"` // applied
	// Fields are the names by which the credential was picked from the version. Empty in old records: not known.
	Fields credential.Fields `json:"fields,omitempty"`
	Digest string            `json:"digest"` // of the applied credential, keyed
	// SecretDigest is the keyed digest of its secret alone: two secrets are never encrypted alike.
	SecretDigest string                `json:"secret_digest,omitempty"`
	Attributes   credential.Attributes `json:"attributes"` // as they were right after the apply
	AppliedAt    time.Time             `json:"applied_at"`

	Intent Intent `json:"-"` // stored as applying or revert_owes_activation

	Activation      []credential.Step `json:"activation,omitempty"` // steps still to be done, in order
	ActivationSince time.Time         `json:"activation_since"`
	ActivatedAt     time.Time         `json:"activated_at"`

	Reverts       []time.Time `json:"reverts,omitempty"` // those of the last hour
	RevertedTotal int         `json:"reverted_total"`

	unknown durable.Unknown
}

// Intent is what was about to be done to the configuration file when the record was written. The record of the outcome clears it.
// Found at a start, it says that nobody knows the outcome. The zero Intent is none.
type Intent struct {
	Kind    IntentKind
	Version credential.Version // of IntentApply
}

// IntentKind says what was about to be done.
type IntentKind int

// The kinds of intent.
const (
	NoIntent     IntentKind = iota
	IntentApply             // a command was about to write Version
	IntentRevert            // drift that Campaign's processes may have read was about to be reverted: activation must follow
)

// Applying reports whether the outcome of an apply is not known.
func (r Record) Applying() bool { return r.Intent.Kind == IntentApply }

const recordFormat = 1

// recordFile is a record as it is stored. Names of fields never change: an older release reads them, too.
type recordFile struct {
	Format int `json:"format"`
	storedRecord
	Applying   *credential.Version `json:"applying,omitempty"`
	RevertOwes bool                `json:"revert_owes_activation,omitempty"`
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
	switch {
	case file.Applying != nil: // it will be followed by activation, too
		r.Intent = Intent{IntentApply, *file.Applying}
	case file.RevertOwes:
		r.Intent.Kind = IntentRevert
	}
	return nil
}

// MarshalJSON writes back the fields of a newer release.
func (r Record) MarshalJSON() ([]byte, error) {
	file := recordFile{Format: recordFormat, storedRecord: storedRecord(r), RevertOwes: r.Intent.Kind == IntentRevert}
	if r.Applying() {
		file.Applying = &r.Intent.Version
	}
	return r.unknown.Encode(file)
}

func (r Record) encode() ([]byte, error) {
	data, err := r.MarshalJSON()
	var indented bytes.Buffer
	if err == nil {
		err = json.Indent(&indented, append(data, '\n'), "", "  ")
	}
	return indented.Bytes(), err
}
