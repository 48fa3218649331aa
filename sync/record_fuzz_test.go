package sync

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// FuzzDecisions: the daemon can go on from whatever is read from the state directory. No decision panics, none breaks a rule, none
// makes the loop spin.
func FuzzDecisions(f *testing.F) {
	for _, text := range recordSeeds {
		f.Add([]byte(text), int64(1767268800), uint16(0))
	}
	f.Add([]byte(recordSeeds[0]), int64(253402300799), uint16(0xffff)) // the last second that RFC 3339 can write
	f.Fuzz(func(t *testing.T, data []byte, unix int64, bits uint16) {
		var record state.Record
		if json.Unmarshal(data, &record) != nil {
			return
		}
		unix = min(max(unix, 0), 253402300799)
		checkDecisions(t, record, time.Unix(unix, 0).UTC(), bits)
	})
}

var recordSeeds = []string{
	`{"format":1,"version":{"number":3,"created":"2026-01-01T10:00:00.123456789Z"},"digest":"0f","attributes":[` +
		`{"name":"authIMSTAClientId","value":"0123456789abcdef0123456789abcdef"},{"name":"authIMSTAPrivateKey","absent":true}],` +
		`"activation_since":"2026-01-01T10:00:05+01:00","reverts":["2026-01-01T11:20:00Z","2026-01-01T11:10:00Z"],"reverted_total":9}`,
	`{"format":1,"version":{"number":1,"created":"2026-01-01T00:00:00Z"},"attributes":[{"name":"a","value":"b"}],` +
		`"applying":{"number":2,"created":"2026-01-01T12:00:00Z"},"activation":["reload","reload","restart web"]}`,
	`{"format":1,"reverts":["9999-12-31T23:59:59Z","0001-01-01T00:00:00Z"],"reverted_total":-1,"revert_owes_activation":true}`,
}

// checkDecisions asks every question that is asked about a record, in the situation that bits describe.
func checkDecisions(t *testing.T, remembered state.Record, now time.Time, bits uint16) {
	t.Helper()
	bit := func(n int) bool { return bits>>n&1 == 1 }
	at := func(n int) time.Time { return now.Add(time.Duration(bits>>n&3) * time.Second) }
	in := &instance{
		Instance: Instance{AllowRollback: bit(5)},
		record:   record{Record: remembered, saving: bit(3)},
		file:     file{recovered: !bit(0), cannotSplice: bit(1), stale: bit(7), recovery: retry{at: at(12)}, restore: retry{at: at(10)}},
		wanted:   wanted{retry: retry{at: at(8)}},
	}
	d := &Daemon{cfg: Config{Revert: []RevertMode{RevertSplice, RevertApply, RevertAlert}[int(bits>>4&3)%3], MaxReverts: 1 + int(bits>>14)}}
	if bit(2) {
		d.activating = &step{}
	}
	if !bit(6) {
		in.file.checkedAt = now
	}
	if !bit(8) {
		in.file.seen = remembered.Attributes
	}
	if bit(9) {
		in.wanted.pending = &pending{digest: remembered.Digest,
			version: credential.Version{Number: remembered.Version.Number + int(bits>>10&3) - 1, Created: now}}
	}
	next := d.plan(in, now)
	switch {
	case next.action == actionNone && !next.again.IsZero() && !next.again.After(now):
		t.Fatalf("nothing to do, and asked again at once: %+v for %+v", next, in)
	case next.action == actionRestore && (remembered.Applying != nil || len(remembered.Attributes) == 0 || d.cfg.Revert != RevertSplice):
		t.Fatalf("drift would be reverted: %+v for %+v", next, in)
	case (next.action == actionApply || next.action == actionRecordSame) && in.wanted.pending == nil, next.action == actionApply && (bit(2) || bit(3)):
		t.Fatalf("would apply: %+v for %+v", next, in)
	}
	r := record{Record: remembered}
	if end, on := r.brake(d.cfg.MaxReverts, now); on && (!end.After(now) || end.After(now.Add(2*revertWindow))) {
		t.Fatalf("the brake is on until %v, it is %v: %+v", end, now, r)
	}
	if r.reverted(now); len(r.Reverts) > len(remembered.Reverts)+1 || !slices.Contains(r.Reverts, now) {
		t.Fatalf("a revert now makes %v of %v", r.Reverts, remembered.Reverts)
	}
	checkActivation(t, remembered, now)
	in.wants(credential.Version{Number: int(bits), Created: now})
	in.requireActivation(now)
	if text, err := json.Marshal(in.record.Record); err != nil || json.Unmarshal(text, new(state.Record)) != nil {
		t.Fatalf("cannot be saved: %v %s", err, text)
	}
}

// checkActivation: step by step, it comes to an end.
func checkActivation(t *testing.T, remembered state.Record, now time.Time) {
	t.Helper()
	in := &instance{}
	in.record.Record = remembered
	d := &Daemon{instances: []*instance{in}}
	for range len(remembered.Activation) + 1 {
		s, members, _ := d.planActivation(now)
		if (len(members) == 0) != (len(in.record.Activation) == 0) {
			t.Fatalf("of %q, %q is done for %v", in.record.Activation, s, members)
		}
		if len(members) == 0 {
			return
		}
		in.record.activated(func(done credential.Step) bool { return done == s }, now)
		in.record.unsaved = false
	}
	t.Fatalf("activation does not end: %+v", in.record)
}
