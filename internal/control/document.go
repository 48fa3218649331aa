package control

import (
	"encoding/json"
	"fmt"
	"slices"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync"
)

// Status is what status --json prints and the control socket answers. Times are RFC 3339 in UTC; null means never, or not known.
// Versions are 0 where there is none.
type Status struct {
	Instances []sync.InstanceStatus `json:"instances"`
	Warnings  []Warning             `json:"warnings"` // what needs a person and concerns no one instance
	Vault     Vault                 `json:"vault"`
	Daemon    Process               `json:"daemon"`
}

// Vault is what is known of Vault. All but Used is zero where no instance has its credential there.
type Vault struct {
	Used            bool        `json:"used"`
	Reachable       bool        `json:"reachable"`
	TokenExpires    sync.Moment `json:"token_expires_at"`
	SecretIDExpires sync.Moment `json:"secret_id_expires_at"`
	LastPoll        sync.Moment `json:"last_poll"`
}

// MarshalJSON serves encoding/json.
func (v Vault) MarshalJSON() ([]byte, error) {
	if !v.Used {
		return []byte(`{"used":false}`), nil
	}
	type plain Vault
	return json.Marshal(plain(v))
}

// Process is the daemon itself.
type Process struct {
	Version        string      `json:"version"`
	StartedAt      sync.Moment `json:"started_at"`
	ConfigFile     string      `json:"config_file"`
	ConfigLoadedAt sync.Moment `json:"config_loaded_at"` // that is in force
	ReloadError    string      `json:"reload_error"`     // why the file as it is now is not in force; one line
}

// Warning needs a person.
type Warning struct {
	Code WarningCode `json:"code"`
	Text string      `json:"text"` // what to do; one line
}

// WarningCode says what a warning is about. The codes are public.
type WarningCode string

// The warnings.
const (
	WarnReloadRejected WarningCode = "reload_rejected"
	WarnSecretIDEnds   WarningCode = "secret_id_ends"
	WarnNotifyFailing  WarningCode = "notify_failing"
	WarnHistoryFailing WarningCode = "history_failing"
	WarnModuleInGroup  WarningCode = "module_in_our_group"
	WarnIMSUnanswered  WarningCode = "ims_unanswered"
	WarnJWTEnded       WarningCode = "jwt_ended"
	WarnLoginFailing   WarningCode = "login_failing"
	WarnStateUnsaved   WarningCode = "state_unsaved"
)

// WarningCodes are all warnings.
var WarningCodes = []WarningCode{WarnReloadRejected, WarnSecretIDEnds, WarnNotifyFailing, WarnHistoryFailing, WarnModuleInGroup, WarnIMSUnanswered,
	WarnJWTEnded, WarnLoginFailing, WarnStateUnsaved}

// Warns reports whether there is a warning.
func (s Status) Warns(code WarningCode) bool {
	return slices.ContainsFunc(s.Warnings, func(w Warning) bool { return w.Code == code })
}

// InSync reports whether every instance is in sync.
func (s Status) InSync() bool {
	return len(NotInSync(s.Instances)) == 0
}

// NotInSync picks the instances that are not.
func NotInSync(instances []sync.InstanceStatus) []sync.InstanceStatus {
	return slices.DeleteFunc(slices.Clone(instances), func(in sync.InstanceStatus) bool { return in.State == sync.StateInSync })
}

// Grade is how urgent a state is.
type Grade string

// The grades.
const (
	Good    Grade = "good"    // in sync
	Waiting Grade = "waiting" // it ends by itself, or an operator wants it so
	Bad     Grade = "bad"
)

// GradeOf is the grade of a state.
func GradeOf(s sync.State) Grade {
	switch s {
	case sync.StateInSync:
		return Good
	case sync.StatePending, sync.StateActivationPending, sync.StatePaused, sync.StateHeld:
		return Waiting
	}
	return Bad
}

// maxSummary is far below what systemd takes in one datagram (4096 bytes; a larger one it ignores), maxReason what one reason may have
// of it. In bytes.
const (
	maxSummary = 2000
	maxReason  = 400
)

// Summary is one line: how many instances are in sync, then the others with what is wrong, as far as there is room.
func Summary(instances []sync.InstanceStatus) string {
	wrong := NotInSync(instances)
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
