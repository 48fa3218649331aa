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
	Format int `json:"format"` // of the file
	// ConfigFile is the configuration file that all of this is about. Empty in old records: the one of the configuration.
	ConfigFile string             `json:"config_file,omitempty"`
	Version    credential.Version `json:"version"` // applied
	// Fields are the names by which the credential was picked from the version. Empty in old records: not known.
	Fields credential.Fields `json:"fields,omitempty"`
	Digest string            `json:"digest"` // of the applied credential, keyed
	// SecretDigest is the keyed digest of its secret alone: two secrets are never encrypted alike.
	SecretDigest string                `json:"secret_digest,omitempty"`
	HasKey       bool                  `json:"has_private_key,omitempty"` // the version has a private key; false also: not known
	Attributes   credential.Attributes `json:"attributes"`                // as they were right after the apply
	AppliedAt    time.Time             `json:"applied_at"`

	// What was about to be done to the configuration file when the record was written; found at a start, its outcome is not known.
	// Applying is the version that a command was about to write. RevertOwesActivation is for drift that was about to be reverted and
	// that Campaign's processes may have read.
	Applying             *credential.Version `json:"applying,omitempty"`
	RevertOwesActivation bool                `json:"revert_owes_activation,omitempty"`

	// Held is there while the first apply waits, as a credential that somebody else set is on disk; then Attributes guard that one.
	Held *Held `json:"held,omitempty"`
	// Paused is there while an operator has the daemon write nothing.
	Paused *Pause `json:"paused,omitempty"`

	// Probe is the last answer of Adobe about a version that was to be applied, until it is; AppliedProbe that about the applied one.
	Probe        *Probe `json:"ims_probe,omitempty"`
	AppliedProbe *Probe `json:"ims_applied_probe,omitempty"`
	// ProbeNotBefore is the time before which Adobe, by its last answer, does not want to be asked. Zero: none.
	ProbeNotBefore time.Time `json:"ims_not_before,omitzero"`

	Activation       []credential.Step `json:"activation,omitempty"` // steps still to be done, in order
	ActivationSince  time.Time         `json:"activation_since"`
	ActivatedAt      time.Time         `json:"activated_at"`
	ActivatedVersion int               `json:"activated_version,omitempty"` // that the processes were told of
	// Proofs are what was seen of steps that are done.
	Proofs *Proofs `json:"activation_proofs,omitempty"`

	Reverts       []time.Time `json:"reverts,omitempty"` // those of the last hour
	RevertedTotal int         `json:"reverted_total"`

	unknown durable.Unknown // of a newer release: after a downgrade, what is applied is not applied anew
}

// Held is what a first apply that waits is compared with: the first version that could be read. All of that is zero until then.
type Held struct {
	Since    time.Time          `json:"since"`
	Version  credential.Version `json:"version"`
	Digest   string             `json:"digest"`             // keyed
	Key      string             `json:"digest_key"`         // which key that was
	Released bool               `json:"released,omitempty"` // by an operator
}

// Pause is an operator's order to write nothing until a time.
type Pause struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Reason string    `json:"reason,omitempty"`
	ByUID  *int      `json:"by_uid,omitempty"`
}

// String says until when, and why.
func (p Pause) String() string {
	text := "paused until " + p.Until.UTC().Format(time.RFC3339)
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// Probe is what Adobe said about a credential.
type Probe struct {
	Version credential.Version `json:"version"`
	Fields  credential.Fields  `json:"fields,omitempty"` // by which it was picked from the version
	Digest  string             `json:"digest"`           // of the credential, keyed
	Result  ProbeResult        `json:"result"`
	Text    string             `json:"text,omitempty"` // why it was refused, without any value
	At      time.Time          `json:"at"`

	unknown durable.Unknown
}

// UnmarshalJSON keeps the fields of a newer release.
func (p *Probe) UnmarshalJSON(object []byte) (err error) {
	type plain Probe
	p.unknown, err = durable.Decode(object, (*plain)(p))
	return err
}

// MarshalJSON writes them back.
func (p Probe) MarshalJSON() ([]byte, error) {
	type plain Probe
	return p.unknown.Encode(plain(p))
}

// Proofs are those of one activation: that of a later one, by a release that knows no proofs, has another Since.
type Proofs struct {
	Since time.Time   `json:"activation_since"` // Record.ActivationSince
	Steps []StepProof `json:"steps"`
}

// StepProof is what was seen of a step.
type StepProof struct {
	Step credential.Step `json:"step"`
	At   time.Time       `json:"at"`
	credential.Proof
}

// ProbeResult is what an answer comes to.
type ProbeResult string

// The results.
const (
	ProbeAccepted     ProbeResult = "accepted"
	ProbeRefused      ProbeResult = "refused"
	ProbeInconclusive ProbeResult = "inconclusive" // it said nothing about the credential
)

// Is reports whether there was an answer, and this one.
func (p *Probe) Is(result ProbeResult) bool { return p != nil && p.Result == result }

const recordFormat = 1

func decode(data []byte) (r Record, err error) {
	r.unknown, err = durable.Decode(data, &r)
	switch {
	case err != nil:
	case r.Format != recordFormat:
		err = fmt.Errorf("format %d is not known, only %d; install the release that wrote it, or run sync, which writes a new one", r.Format, recordFormat)
	case !r.Version.IsZero() && len(r.Attributes) == 0:
		err = errors.New("an applied version without attributes; run sync, which writes a new one")
	default:
		return r, nil
	}
	return Record{}, err
}

func (r Record) encode() ([]byte, error) {
	r.Format = recordFormat
	data, err := r.unknown.Encode(r)
	if err != nil {
		return nil, err
	}
	data, err = json.MarshalIndent(json.RawMessage(data), "", "  ")
	return append(data, '\n'), err
}
