package credential

import (
	"fmt"
	"time"
)

// Version names one version of a secret at its source. The zero Version means none.
type Version struct {
	Number  int       `json:"number"`
	Created time.Time `json:"created"`
}

// Equal reports whether both name the same version. A number alone does not: a secret that was deleted with all its
// versions and written anew counts from 1 again.
func (v Version) Equal(w Version) bool {
	return v.Number == w.Number && v.Created.Equal(w.Created)
}

// IsZero reports whether v names no version.
func (v Version) IsZero() bool { return v.Number == 0 && v.Created.IsZero() }

// GoesBackFrom reports whether going from w to v is going back: a lower number that was not created later, or the same
// number created earlier. That is what a stale standby or a rollback shows. A lower number created later is a secret
// deleted and written anew.
func (v Version) GoesBackFrom(w Version) bool {
	return v.Number < w.Number && !v.Created.After(w.Created) || v.Number == w.Number && v.Created.Before(w.Created)
}

func (v Version) String() string { return fmt.Sprint(v.Number) }

// Reading is what a source says when asked for the newest version.
type Reading struct {
	Version Version
	// Credential is nil when the asker did not need it.
	Credential *Credential
}

// Refusal is the error of a source that was reached and has no usable credential: no secret, deleted, destroyed, of the
// wrong shape. What was applied before stays as it is.
type Refusal struct {
	// Version is the refused version, or zero when there is none (no such secret).
	Version Version
	// Reason says what is wrong and what to do, without any value.
	Reason string
}

func (r *Refusal) Error() string {
	if r.Version.IsZero() {
		return r.Reason
	}
	return fmt.Sprintf("version %d: %s", r.Version.Number, r.Reason)
}
