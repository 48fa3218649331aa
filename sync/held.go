package sync

import (
	"maps"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// A first apply is held where somebody else set a credential: the daemon does not know whether Vault's is right. It guards what is there,
// and applies when an operator says so, or when the secret becomes another than the first that was read.

// holdFirstApply begins that after a look, if it is the first one ever and the credential on disk is complete.
func (d *Daemon) holdFirstApply(in *instance, seen credential.Attributes, now time.Time) {
	r := &in.record
	if !d.cfg.HoldFirst || !r.Version.IsZero() || r.Applying != nil || r.Held != nil {
		return
	}
	managed, complete := in.Sink.Managed(seen)
	if !complete {
		return
	}
	r.Held = &state.Held{Since: now, Released: in.ordered}
	r.Attributes = managed
	r.unsaved = true
	in.learnFirst(d.cfg.Store.Key())
	if in.isHeld() {
		in.log.Warn("the first apply is held, as somebody else set the credential that is on disk; to apply the source's, run sync; to keep it, run adopt")
		d.emit(in, event.Event{Kind: event.Held, Version: r.Held.Version.Number, Text: "a credential that somebody else set is on disk"})
	}
}

// learnFirst remembers the first version that could be read. What was remembered with another key, under other names of fields, or of
// another secret cannot be compared: it is no older version of this one.
func (in *instance) learnFirst(key []byte) {
	r, p := &in.record, in.wanted.pending
	if r.Held == nil || p == nil {
		return
	}
	held := *r.Held // a record is a value
	sameSecret := held.Version.Secret == p.version.Secret
	if held.Digest != "" && held.Key == credential.KeyID(key) && maps.Equal(r.Fields, p.fields) && sameSecret {
		return
	}
	held.Version, held.Digest, held.Key = p.version, p.digest, credential.KeyID(key)
	r.Held, r.Fields, r.unsaved = &held, p.fields, true
}

// isHeld reports whether the first apply waits.
func (in *instance) isHeld() bool {
	h, p := in.record.Held, in.wanted.pending
	switch {
	case h == nil || h.Released || in.record.Applying != nil:
		return false
	case p == nil || h.Digest == "":
		return true
	}
	return p.digest == h.Digest || p.version.GoesBackFrom(h.Version)
}

// isSetByOthers reports whether somebody else set the credential that is guarded: its first apply is held, or it was adopted. The source
// may have another one, so nlserver is not run for what is guarded, but for another version.
func (in *instance) isSetByOthers() bool {
	return in.isHeld() || (!in.record.Version.IsZero() && in.record.Digest == "")
}

// release lets the first apply go on, whenever it comes.
func (in *instance) release() {
	in.ordered = true
	if h := in.record.Held; h != nil && !h.Released {
		held := *h
		held.Released = true
		in.record.Held, in.record.unsaved = &held, true
	}
}
