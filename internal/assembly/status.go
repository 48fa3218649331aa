package assembly

import (
	"context"

	"campaign-credsync/internal/control"
	"campaign-credsync/sources/jsonfile"
	"campaign-credsync/sync"
)

// Ping, Status and Sync make a running assembly a control.Daemon.

// Ping returns nil when the daemon is alive.
func (a *assembly) Ping(ctx context.Context) error { return a.daemon.Ping(ctx) }

// Status is the newest status.
func (a *assembly) Status() control.Status { return a.document(a.daemon.Status()) }

// Sync does a pass, and waits for no retry.
func (a *assembly) Sync(ctx context.Context, instances ...string) (control.Status, error) {
	if a.vault != nil {
		a.vault.ResetBackoff()
	}
	status, err := a.daemon.Check(ctx, instances...)
	return a.document(status), err
}

// document makes the status document. What it says of Vault is what the instances saw whose credential is there.
func (a *assembly) document(s []sync.InstanceStatus) control.Status {
	vault := control.Vault{Reachable: true}
	for i, in := range s {
		if _, isFile := a.settings.Instances[i].Source.(*jsonfile.File); isFile {
			continue
		}
		vault.Reachable = vault.Reachable && in.SourceReached
		if in.LastPoll.After(vault.LastPoll.Time) {
			vault.LastPoll.Time = in.LastPoll
		}
	}
	if a.vault != nil {
		vault.TokenExpires.Time = a.vault.TokenExpires()
	}
	return control.Status{Instances: s, Vault: vault}
}
