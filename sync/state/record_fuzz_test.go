package state

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
)

// FuzzRecord: whatever is read from the state directory can be written there again as the same.
func FuzzRecord(f *testing.F) {
	for _, text := range recordSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		record, err := decode(data)
		switch {
		case err != nil && !reflect.DeepEqual(record, Record{}):
			t.Fatalf("refused (%v), and yet there is %+v", err, record)
		case err != nil:
			return
		case !record.Version.IsZero() && len(record.Attributes) == 0:
			t.Error("a version without attributes was accepted")
		}
		checkRoundTrip(t, record)
	})
}

var recordSeeds = []string{
	`{"format":1,"version":{"number":3,"created":"2026-01-01T10:00:00.123456789Z"},"digest":"0f","attributes":[` +
		`{"name":"authIMSTAClientId","value":"0123456789abcdef0123456789abcdef"},{"name":"authIMSTAClientSecret","value":"@a+b/c=="},` +
		`{"name":"authIMSTAId","value":""},{"name":"authIMSTAPrivateKey","absent":true}],"applied_at":"2026-01-01T10:00:05+01:00",` +
		`"activation_since":"2026-01-01T10:00:05+01:00","activated_at":"2026-01-01T10:00:06+01:00",` +
		`"reverts":["2026-01-01T11:20:00Z","2026-01-01T11:10:00Z"],"reverted_total":9}`,
	`{"format":1,"version":{"number":1,"created":"2026-01-01T00:00:00Z"},"attributes":[{"name":"a","value":"b"}],` +
		`"applying":{"number":2,"created":"2026-01-01T12:00:00Z"},"activation":["reload","reload","restart web"]}`,
	`{"format":1}`, `{"format":2}`, `{"format":1,"version":{"number":1}}`, `{"format":1,"surprise":1}`, `{"format":1,"a":[{}],"version":{"number":1,"b":null},"attributes":[{"name":"a","raw":"J2In","c":{}}],"applying":{"d":"e"}}`, `{"format":1} {`, `null`, `{`, ``,
	`{"format":1,"version":{"number":-1,"created":"0000-01-01T00:00:00+23:59"},"attributes":[{"name":""},{"name":""}]}`,
	`{"format":1,"reverts":["9999-12-31T23:59:59Z","0001-01-01T00:00:00Z"],"reverted_total":-1,"applying":{}}`,
}

func checkRoundTrip(t *testing.T, record Record) {
	t.Helper()
	written := encoded(t, record)
	again, err := decode(written)
	if err != nil {
		t.Fatalf("what was written is refused: %v\n%s", err, written)
	}
	if twice := encoded(t, again); string(twice) != string(written) {
		t.Fatalf("written again it is\n%s, it was\n%s", twice, written)
	}
	if !again.Version.Equal(record.Version) || again.Digest != record.Digest || !reflect.DeepEqual(again.Attributes, record.Attributes) ||
		!sameVersion(again.Applying, record.Applying) || again.RevertOwesActivation != record.RevertOwesActivation || !slices.Equal(again.Activation, record.Activation) ||
		!again.AppliedAt.Equal(record.AppliedAt) || !again.ActivationSince.Equal(record.ActivationSince) ||
		!again.ActivatedAt.Equal(record.ActivatedAt) || !slices.EqualFunc(again.Reverts, record.Reverts, time.Time.Equal) ||
		again.RevertedTotal != record.RevertedTotal {
		t.Fatalf("it was %+v and became %+v", record, again)
	}
}

func sameVersion(a, b *credential.Version) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}

func encoded(t *testing.T, record Record) []byte {
	t.Helper()
	text, err := record.encode()
	if err != nil {
		t.Fatalf("what was read cannot be written: %v\n%+v", err, record)
	}
	return text
}
