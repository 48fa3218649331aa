package control

import (
	"strings"
	"testing"

	"campaign-credsync/sync"
)

// TestSummary: each instance that is not in sync is there, as far as there is room.
func TestSummary(t *testing.T) {
	few := []sync.InstanceStatus{{Name: "a", State: sync.StateInSync}, {Name: "b", State: "pending", LastError: "no way"}, {Name: "c", State: "drift"},
		{Name: "d", State: "pending", LastError: "no way"}}
	if got, want := Summary(few), "1 of 4 instances in sync; b: pending (no way); c: drift; d: pending (no way)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var many []sync.InstanceStatus
	for i := range 26 {
		name := string(rune('a' + i))
		many = append(many, sync.InstanceStatus{Name: name, State: "pending", LastError: strings.Repeat(name, 1000)})
	}
	if got := Summary(many); len(got) > maxSummary+30 || !strings.HasSuffix(got, "; … and 22 more") {
		t.Errorf("%d bytes, end with %q", len(got), got[len(got)-40:])
	}
}
