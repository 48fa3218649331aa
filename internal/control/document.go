package control

import (
	"fmt"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
)

// Status is what status --json prints and the control socket answers. Times are RFC 3339 in UTC; null means never, or not known.
// Versions are 0 where there is none.
type Status struct {
	Instances []Instance `json:"instances"`
	Vault     Vault      `json:"vault"`
}

// Instance is the state of one instance.
type Instance struct {
	Name           string     `json:"name"`
	State          string     `json:"state"` // see sync.State
	WantedVersion  int        `json:"wanted_version"`
	AppliedVersion int        `json:"applied_version"`
	AppliedAt      *time.Time `json:"applied_at"`
	ActivatedAt    *time.Time `json:"activated_at"`
	LastCheck      *time.Time `json:"last_check"`
	RevertedTotal  int        `json:"drift_reverted_total"`
	LastError      string     `json:"last_error"`
}

// Vault is what is known of Vault. Where no instance has its credential there, it is reachable and was never polled.
type Vault struct {
	Reachable    bool       `json:"reachable"`
	TokenExpires *time.Time `json:"token_expires_at"`
	LastPoll     *time.Time `json:"last_poll"`
}

// InSync is the state of an instance that has nothing to do.
const InSync = "in_sync"

// Used reports whether any instance has its credential in Vault: one that was never polled is not reachable.
func (v Vault) Used() bool { return !v.Reachable || v.LastPoll != nil }

// InSync reports whether every instance is in sync.
func (s Status) InSync() bool {
	return !slices.ContainsFunc(s.Instances, func(in Instance) bool { return in.State != InSync })
}

// maxReason is what one reason may have of a summary, in bytes. Ten of them, with their names, are less than systemd takes in one
// datagram (4096 bytes; a larger one it ignores).
const maxReason = 200

// Summary is one line: how many instances are in sync, then the first others with what is wrong.
func Summary(instances []Instance) string {
	var wrong []string
	for _, in := range instances {
		if in.State == InSync {
			continue
		}
		text := in.Name + ": " + in.State
		if in.LastError != "" {
			text += " (" + credential.Cut(in.LastError, maxReason) + ")"
		}
		wrong = append(wrong, text)
	}
	line := fmt.Sprintf("%d of %d instances in sync", len(instances)-len(wrong), len(instances))
	if len(wrong) > 0 {
		line += "; " + credential.List(wrong)
	}
	return line
}
