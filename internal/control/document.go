package control

import (
	"fmt"
	"slices"
	"strings"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync"
)

// Status is what status --json prints and the control socket answers. Times are RFC 3339 in UTC; null means never, or not known.
// Versions are 0 where there is none.
type Status struct {
	Instances []sync.InstanceStatus `json:"instances"`
	Vault     Vault                 `json:"vault"`
}

// Vault is what is known of Vault. Where no instance has its credential there, it is reachable and was never polled.
type Vault struct {
	Reachable    bool        `json:"reachable"`
	TokenExpires sync.Moment `json:"token_expires_at"`
	LastPoll     sync.Moment `json:"last_poll"`
}

// Used reports whether any instance has its credential in Vault: one that was never polled is not reachable.
func (v Vault) Used() bool { return !v.Reachable || !v.LastPoll.IsZero() }

// InSync reports whether every instance is in sync.
func (s Status) InSync() bool {
	return !slices.ContainsFunc(s.Instances, func(in sync.InstanceStatus) bool { return in.State != sync.StateInSync })
}

// Limits of a summary, in bytes. The whole is less than systemd takes in one datagram (4096; a larger one it ignores).
const (
	maxReason = 200 // for one instance
	maxWrong  = 3000
)

// Summary is one line: how many instances are in sync, then the first others with what is wrong.
func Summary(instances []sync.InstanceStatus) string {
	var wrong []string
	for _, in := range instances {
		if in.State == sync.StateInSync {
			continue
		}
		text := in.Name + ": " + string(in.State)
		if in.LastError != "" {
			text += " (" + credential.Cut(in.LastError, maxReason) + ")"
		}
		wrong = append(wrong, text)
	}
	line := fmt.Sprintf("%d of %d instances in sync", len(instances)-len(wrong), len(instances))
	if len(wrong) > 0 {
		line += "; " + credential.Cut(strings.Join(wrong, ", "), maxWrong)
	}
	return line
}
