package sync

import (
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
		if record.UnmarshalJSON(data) != nil {
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
func checkDecisions(t *testing.T, record state.Record, now time.Time, bits uint16) {
	t.Helper()
	bit := func(n int) bool { return bits>>n&1 == 1 }
	at := func(n int) time.Time { return now.Add(time.Duration(bits>>n&3) * time.Second) }
	v := view{
		now: now, record: record, recovered: !bit(0), cannotPut: bit(1), activating: bit(2), saving: bit(3), maxReverts: 1 + int(bits>>14),
		mode: []RevertMode{RevertSplice, RevertApply, RevertAlert}[int(bits>>4&3)%3],
		disk: disk{looked: !bit(6), stale: bit(7)}, applyRetry: at(8), restoreRetry: at(10), recoverRetry: at(12),
	}
	if !bit(8) {
		v.disk.seen = record.Attributes
	}
	if bit(9) {
		v.pending = &pending{version: credential.Version{Number: record.Version.Number + int(bits>>10&3) - 1, Created: now}, digest: record.Digest}
	}
	d := plan(v)
	switch {
	case d.deed == doNothing && !d.again.IsZero() && !d.again.After(now):
		t.Fatalf("nothing to do, and asked again at once: %+v for %+v", d, v)
	case d.deed == doRestore && (record.Applying() || len(record.Attributes) == 0 || v.mode != RevertSplice):
		t.Fatalf("drift would be put back: %+v for %+v", d, v)
	case (d.deed == doApply || d.deed == doRecord) && v.pending == nil, d.deed == doApply && (v.activating || v.saving):
		t.Fatalf("would apply: %+v for %+v", d, v)
	}
	if end, on := brake(record, v.maxReverts, now); on && (!end.After(now) || end.After(now.Add(2*revertWindow))) {
		t.Fatalf("the brake is on until %v, it is %v: %+v", end, now, record)
	}
	if reverted := reverted(record, now); len(reverted.Reverts) > len(record.Reverts)+1 || !slices.Contains(reverted.Reverts, now) {
		t.Fatalf("a revert now makes %v of %v", reverted.Reverts, record.Reverts)
	}
	checkActivation(t, record, now)
	wantsSecret(credential.Version{Number: int(bits), Created: now}, nil, record, v.pending, nil, "", bit(5))
	done := applied(record, pending{version: credential.Version{Number: 1, Created: now}, digest: "d"}, credential.Attributes{{Name: "a"}}, record.Activation, now)
	if text, err := done.MarshalJSON(); err != nil || new(state.Record).UnmarshalJSON(text) != nil {
		t.Fatalf("cannot be saved: %v %s", err, text)
	}
}

// checkActivation: step by step, it comes to an end.
func checkActivation(t *testing.T, record state.Record, now time.Time) {
	t.Helper()
	for range len(record.Activation) + 1 {
		step, forWhom, _ := planActivation(now, []activationView{{steps: record.Activation}})
		if (len(forWhom) == 0) != (len(record.Activation) == 0) {
			t.Fatalf("of %q, %q is done for %v", record.Activation, step, forWhom)
		}
		if len(forWhom) == 0 {
			return
		}
		record = activated(record, step, now)
	}
	t.Fatalf("activation does not end: %+v", record)
}
