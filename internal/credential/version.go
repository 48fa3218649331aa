package credential

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/durable"
)

// Version names one version of a secret at its source. The zero Version means none.
type Version struct {
	Number int `json:"number"`
	// Created is zero where the source does not know: a KV version 1 mount, a file.
	Created time.Time `json:"created"`
	// Digest is a keyed digest of the content, of a source that may show another content under the same number; else empty.
	Digest string `json:"digest,omitempty"`
	// Unordered says that the source has no versions: Number comes from Digest, and nobody can tell which of two is newer.
	Unordered bool `json:"unordered,omitempty"`
	// Secret names the secret whose versions Number counts. Empty where there is no order, and in old records: not known.
	Secret string `json:"secret,omitempty"`
	// Begun is when Number began to count: one that was deleted with all versions, and written anew, counts from 1 again. Zero: not known.
	Begun time.Time `json:"begun,omitzero"`

	unknown durable.Unknown
}

// UnmarshalJSON keeps the fields of a newer release.
func (v *Version) UnmarshalJSON(object []byte) (err error) {
	type plain Version
	v.unknown, err = durable.Decode(object, (*plain)(v))
	return err
}

// MarshalJSON writes them back.
func (v Version) MarshalJSON() ([]byte, error) {
	type plain Version
	return v.unknown.Encode(plain(v))
}

// ContentVersion is the version of a content whose source has no versions. Its number shows people that something changed. It is made
// of the digest, from 1 to 2³¹-1: exact in every program that reads JSON, and it says nothing to whoever does not have the key.
func ContentVersion(key, content []byte) Version {
	v := NumberedContent(0, key, content)
	sum := sha256.Sum256([]byte(v.Digest))
	v.Number, v.Unordered = max(1, int(binary.BigEndian.Uint32(sum[:])>>1)), true
	return v
}

// NumberedContent is the version of a content to which its writer gave a number. Its Secret is not known yet.
func NumberedContent(number int, key, content []byte) Version {
	mac := hmac.New(sha256.New, key)
	mac.Write(content)
	return Version{Number: number, Digest: hex.EncodeToString(mac.Sum(nil))}
}

// Equal reports whether both name the same version. A number alone does not: a secret that was deleted and written anew counts from 1
// again, and a file's writer may forget to count.
func (v Version) Equal(w Version) bool {
	return v.Number == w.Number && v.Created.Equal(w.Created) && v.Digest == w.Digest && v.Unordered == w.Unordered
}

// IsZero reports whether v names no version.
func (v Version) IsZero() bool { return v.Number == 0 && v.Created.IsZero() && v.Digest == "" }

// GoesBackFrom reports whether going from w to v is going back, as a stale standby or a rollback shows it: a lower number that was not
// created later, or the same number created earlier. A lower number created later is a secret that was deleted and written anew; going
// from that to any number that it had before is going back, too, where Begun tells. Where nobody can tell it is false: one of them is
// unordered, they are of two secrets, or only one of them has a time.
func (v Version) GoesBackFrom(w Version) bool {
	anotherSecret := v.Secret != "" && w.Secret != "" && v.Secret != w.Secret
	if v.Unordered || w.Unordered || v.Created.IsZero() != w.Created.IsZero() || anotherSecret {
		return false
	}
	if !v.Begun.IsZero() && !w.Begun.IsZero() && !v.Begun.Equal(w.Begun) { // their numbers cannot be compared
		return !v.Created.After(w.Created)
	}
	return v.Number < w.Number && !v.Created.After(w.Created) || v.Number == w.Number && v.Created.Before(w.Created)
}

// String returns the number.
func (v Version) String() string { return fmt.Sprint(v.Number) }

// Fields maps the names of the credential's fields (the Field constants) to the keys that a secret has for them.
type Fields map[string]string

// Key returns the key of a field: its own name, if f has none.
func (f Fields) Key(field string) string { return cmp.Or(f[field], field) }

// Reading is what a source says when asked for the newest version.
type Reading struct {
	Version Version
	// Credential takes a credential out of the secret by the keys that its fields have there, which may differ between instances that
	// share a secret. It may be called concurrently. nil when the secret was not needed.
	Credential func(Fields) (Credential, *Refusal)
}

// Refusal is the error of a source that was reached and has no usable credential: no secret, deleted, destroyed, of the wrong shape.
type Refusal struct {
	Version Version // zero when there is none (no such secret)
	Reason  string  // what is wrong and what to do, without any value
	Code    Reason
}

// Error tells the reason, and the version if its number says something.
func (r *Refusal) Error() string {
	if r.Version.IsZero() || r.Version.Unordered {
		return r.Reason
	}
	return fmt.Sprintf("version %d: %s", r.Version.Number, r.Reason)
}

// NeedsOperator marks an error that waiting does not mend.
func NeedsOperator(err error) error { return needsOperator{err} }

type needsOperator struct{ error }

func (n needsOperator) Unwrap() error { return n.error }

// IsForOperator reports whether err, or one that it wraps, was marked by [NeedsOperator].
func IsForOperator(err error) bool {
	_, ok := errors.AsType[needsOperator](err)
	return ok
}
