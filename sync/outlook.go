package sync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// Outlook is what a pass over an instance would find.
type Outlook struct {
	Applied    credential.Version
	Version    credential.Version     // the source's newest
	Apply      bool                   // Version would be applied
	Credential *credential.Credential // that would be, nil without Apply
	Seen       credential.Attributes  // on disk
	Refusal    *credential.Refusal    // why it would not
	Drift      []string               // attributes that differ from what was applied
	Braked     bool                   // and is not put back for now
	Activation []credential.Step      // steps still to be done
}

// Look compares what is wanted, applied and on disk. It reads and changes nothing. maxReverts is as in Config.
func Look(ctx context.Context, in Instance, store *state.Store, maxReverts int) (Outlook, error) {
	record, err := store.Load(in.Name)
	if err != nil {
		return Outlook{}, err
	}
	o := Outlook{Applied: record.Version, Activation: record.Activation}
	seen, err := in.Sink.Look(ctx)
	if err != nil {
		return o, err
	}
	o.Seen, o.Drift = seen, driftOf(record, seen)
	if _, braked := brake(record, maxReverts, time.Now()); braked {
		o.Braked = len(o.Drift) > 0
	}
	reading, err := in.Source.Poll(ctx, func(v credential.Version) bool {
		return wantsSecret(v, in.Fields, record, nil, nil, "", in.AllowRollback)
	})
	if err != nil && !errors.As(err, &o.Refusal) {
		return o, err
	}
	if o.Refusal != nil {
		return o, nil
	}
	o.Version = reading.Version
	if goesBack(o.Version, record, nil, in.AllowRollback) {
		o.Refusal = rollback(o.Version, record.Version)
		return o, nil
	}
	if reading.Credential == nil {
		return o, nil
	}
	c, refusal := reading.Credential(in.Fields)
	switch {
	case refusal != nil:
		o.Refusal = refusal
	case record.Applying() || c.Digest(store.Key()) != record.Digest:
		o.Apply, o.Credential = true, &c
	}
	return o, nil
}

func rollback(v, applied credential.Version) *credential.Refusal {
	if v.Number == applied.Number {
		return &credential.Refusal{Version: v, Reason: fmt.Sprintf(
			"goes back: it was created at %s, and what is applied under this number at %s; set allow_rollback for the instance if that is meant",
			v.Created.UTC().Format(time.RFC3339), applied.Created.UTC().Format(time.RFC3339))}
	}
	return &credential.Refusal{Version: v, Reason: fmt.Sprintf(
		"goes back from version %d: the source is behind (a node of a cluster?) or was rolled back; set allow_rollback for the instance if "+
			"that is meant", applied.Number)}
}
