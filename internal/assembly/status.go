package assembly

import (
	"context"
	"time"

	"campaign-credsync/internal/control"
	"campaign-credsync/sources/jsonfile"
	"campaign-credsync/sync"
)

// answers makes a running assembly a control.Daemon.
type answers struct {
	*sync.Daemon
	assembly *assembly
}

// Status is the newest status.
func (a answers) Status() control.Status { return a.assembly.document(a.Daemon.Status()) }

// Sync does a pass, and waits for no retry.
func (a answers) Sync(ctx context.Context, instances ...string) (control.Status, error) {
	if a.assembly.vault != nil {
		a.assembly.vault.ResetBackoff()
	}
	status, err := a.Check(ctx, instances...)
	return a.assembly.document(status), err
}

// document makes the status document. What it says of Vault is what the instances saw whose credential is there.
func (a *assembly) document(s sync.Status) control.Status {
	vault := control.Vault{Reachable: true}
	var lastPoll time.Time
	for i, in := range s.Instances {
		if _, isFile := a.settings.Instances[i].Source.(*jsonfile.File); isFile {
			continue
		}
		vault.Reachable = vault.Reachable && in.SourceReached
		if in.LastPoll.After(lastPoll) {
			lastPoll = in.LastPoll
		}
	}
	vault.LastPoll.Time = lastPoll
	if a.vault != nil {
		vault.TokenExpires.Time = a.vault.TokenExpires()
	}
	return control.Status{Instances: s.Instances, Vault: vault}
}
