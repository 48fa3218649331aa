package control

import (
	"fmt"
	"slices"

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

// maxSummary is far below what systemd takes in one datagram (4096 bytes; a larger one it ignores), maxReason what one reason may have
// of it. In bytes.
const (
	maxSummary = 2000
	maxReason  = 400
)

// Summary is one line: how many instances are in sync, then the others with what is wrong, as far as there is room.
func Summary(instances []sync.InstanceStatus) string {
	wrong := slices.DeleteFunc(slices.Clone(instances), func(in sync.InstanceStatus) bool { return in.State == sync.StateInSync })
	line := fmt.Sprintf("%d of %d instances in sync", len(instances)-len(wrong), len(instances))
	for i, in := range wrong {
		next := "; " + in.Name + ": " + string(in.State)
		if in.LastError != "" {
			next += " (" + credential.Cut(in.LastError, maxReason) + ")"
		}
		if len(line)+len(next) > maxSummary {
			return fmt.Sprintf("%s; … and %d more", line, len(wrong)-i)
		}
		line += next
	}
	return line
}
