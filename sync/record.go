package sync

import (
	"maps"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// holds reports whether what is applied was picked from v by fields. Under other names the same version is another credential.
func holds(r state.Record, v credential.Version, fields credential.Fields) bool {
	return v.Equal(r.Version) && (len(r.Fields) == 0 || maps.Equal(r.Fields, fields))
}

// applied is the record after an apply: one value, so that version, digest, attributes and the activation that is due
// reach the disk together.
func applied(r state.Record, p pending, attributes credential.Attributes, steps []credential.Step, now time.Time) state.Record {
	r.Version, r.Fields, r.Digest, r.SecretDigest = p.version, p.fields, p.digest, p.secretDigest
	r.Attributes, r.AppliedAt = attributes, now
	return activationDue(r, steps, now)
}

// showsAnother reports whether attributes, though read after an apply of p, are those of another secret: it looked as if
// nlserver had written what somebody else wrote.
func showsAnother(r state.Record, p pending, attributes credential.Attributes) bool {
	return r.SecretDigest != "" && r.SecretDigest != p.secretDigest && len(credential.Drift(r.Attributes, attributes)) == 0
}

func activationDue(r state.Record, steps []credential.Step, now time.Time) state.Record {
	if len(r.Activation) == 0 {
		r.ActivationSince = now // else it goes on waiting for the time it has been waiting for
	}
	r.Activation, r.Intent = steps, state.Intent{}
	if len(steps) == 0 {
		r.ActivatedAt = now
	}
	return r
}

// activated is the record after one step of activation.
func activated(r state.Record, step credential.Step, now time.Time) state.Record {
	r.Activation = slices.DeleteFunc(slices.Clone(r.Activation), func(s credential.Step) bool { return s == step })
	if len(r.Activation) == 0 {
		r.ActivatedAt = now
	}
	return r
}

// reverted is the record after a revert.
func reverted(r state.Record, now time.Time) state.Record {
	r.Reverts = append(recentReverts(r.Reverts, now), now)
	r.Reverts = r.Reverts[max(0, len(r.Reverts)-rememberedReverts):]
	r.RevertedTotal++
	return r
}

// rememberedReverts bounds the record, which is written whole: with a greater drift.max_reverts there is no brake.
const rememberedReverts = 10000

// revertWindow is the time over which reverts count for the brake.
const revertWindow = time.Hour

// recentReverts returns a fresh slice of those within the last hour. One that is further than that in the future was
// stamped by a clock that has been set back since; it must not stop reverts for a year.
func recentReverts(reverts []time.Time, now time.Time) []time.Time {
	recent := make([]time.Time, 0, len(reverts)+1)
	for _, t := range reverts {
		if now.Sub(t).Abs() < revertWindow {
			recent = append(recent, t)
		}
	}
	return recent
}
