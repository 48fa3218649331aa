package sync

import (
	"slices"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sync/state"
)

// The table reads like the policy: given what is wanted, applied and on disk, what is to be done?
func TestPlan(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	later := now.Add(time.Minute)
	right := credential.Attributes{{Name: "id", Value: "right"}, {Name: "key", Absent: true}}
	wrong := credential.Attributes{{Name: "id", Value: "wrong"}}
	empty := credential.Attributes{{Name: "id", Value: ""}}
	extra := credential.Attributes{{Name: "id", Value: "right"}, {Name: "key", Value: "stray"}}
	one, two := credential.Version{Number: 1}, credential.Version{Number: 2}
	applied := state.Record{Version: one, Digest: "digest", Attributes: right}
	interrupted := applied
	interrupted.Intent = state.Intent{Kind: state.IntentApply, Version: two}
	owing := applied
	owing.Intent.Kind = state.IntentRevert
	tired := applied
	tired.Reverts = []time.Time{now.Add(-time.Minute), now.Add(-time.Second)}
	rested := applied
	rested.Reverts = []time.Time{now.Add(-61 * time.Minute), now.Add(-time.Second)}
	fromTheFuture := applied
	fromTheFuture.Reverts = []time.Time{now.AddDate(1, 0, 0), now.AddDate(1, 0, 0)}
	seen := func(a credential.Attributes) disk { return disk{looked: true, seen: a} }
	waiting := &pending{version: two}
	same := &pending{version: two, digest: "digest"}
	forced := &pending{version: one, digest: "digest", force: forceReapply}

	for _, c := range []struct {
		name string
		view view
		want deed
		// again is when the question comes up again by itself
		again time.Time
	}{
		{"at start, what is left behind comes first", view{pending: waiting}, doRecover, time.Time{}},
		{"an earlier command still runs", view{recoverRetry: later}, doNothing, later},
		{"nothing is known of the disk", view{recovered: true}, doLook, time.Time{}},
		{"something may have changed: look and put back", view{recovered: true, record: applied, disk: disk{looked: true, stale: true}}, doRestore, time.Time{}},
		{"the same, but the brake is on", view{recovered: true, record: tired, disk: disk{looked: true, stale: true}}, doLook, time.Time{}},
		{"the same, but drift is only reported", view{recovered: true, record: applied, mode: RevertAlert, disk: disk{looked: true, stale: true}}, doLook, time.Time{}},
		{"in sync", view{recovered: true, record: applied, disk: seen(right)}, doNothing, time.Time{}},
		{"a version waits", view{recovered: true, record: applied, disk: seen(right), pending: waiting}, doApply, time.Time{}},
		{"a version waits, and nothing was ever applied", view{recovered: true, disk: seen(wrong), pending: waiting}, doApply, time.Time{}},
		{"a version waits for its retry", view{recovered: true, record: applied, disk: seen(right), pending: waiting, applyRetry: later}, doNothing, later},
		{"a version waits for its retry, and the last try did damage", view{recovered: true, record: applied, disk: seen(wrong), pending: waiting, applyRetry: later}, doRestore, later},
		{"a version waits for an activation to end", view{recovered: true, record: applied, disk: seen(right), pending: waiting, activating: true}, doNothing, time.Time{}},
		{"the same, and drift was found that the processes may have read", view{recovered: true, record: applied, disk: seen(wrong), pending: waiting, activating: true, activates: true}, doOwe, time.Time{}},
		{"what that revert owes is being recorded", view{recovered: true, record: owing, disk: seen(wrong), activates: true, recordWait: later}, doNothing, later},
		{"what that revert owes is on record", view{recovered: true, record: owing, disk: seen(wrong), activates: true}, doRestore, time.Time{}},
		{"the disk of the record hangs: the file comes first", view{recovered: true, record: owing, disk: seen(wrong), activates: true, recordWait: now}, doRestore, time.Time{}},
		{"a version waits for the record to be written", view{recovered: true, record: applied, disk: seen(right), pending: waiting, saving: true}, doNothing, time.Time{}},
		{"a new version holds the same credential", view{recovered: true, record: applied, disk: seen(right), pending: same}, doRecord, time.Time{}},
		{"the same, but nobody knows what is on disk", view{recovered: true, record: interrupted, disk: seen(wrong), pending: same}, doApply, time.Time{}},
		{"a schedule wants it applied again", view{recovered: true, record: applied, disk: seen(right), pending: forced}, doApply, time.Time{}},
		{"the file is missing", view{recovered: true, record: applied, pending: waiting, disk: disk{looked: true, err: credential.ErrMissing, lookAt: later}}, doNothing, later},
		{"the file was missing a while ago", view{recovered: true, record: state.Record{}, disk: disk{looked: true, err: credential.ErrMissing, lookAt: now}}, doLook, time.Time{}},
		{"drift", view{recovered: true, record: applied, disk: seen(wrong)}, doRestore, time.Time{}},
		{"an empty attribute is drift", view{recovered: true, record: applied, disk: seen(empty)}, doRestore, time.Time{}},
		{"a missing element is drift", view{recovered: true, record: applied, disk: seen(nil)}, doRestore, time.Time{}},
		{"an attribute that was absent is drift", view{recovered: true, record: applied, disk: seen(extra)}, doRestore, time.Time{}},
		{"drift waits for its retry", view{recovered: true, record: applied, disk: seen(wrong), restoreRetry: later}, doNothing, later},
		{"drift is only reported", view{recovered: true, record: applied, disk: seen(wrong), mode: RevertAlert}, doNothing, time.Time{}},
		{"drift is put back by nlserver, for which the credential is needed", view{recovered: true, record: applied, disk: seen(wrong), mode: RevertApply}, doFetch, time.Time{}},
		{"a splice cannot work", view{recovered: true, record: applied, disk: seen(wrong), cannotPut: true}, doFetch, time.Time{}},
		{"the brake is on", view{recovered: true, record: tired, disk: seen(wrong)}, doNothing, now.Add(59 * time.Minute)},
		{"the brake has let go", view{recovered: true, record: rested, disk: seen(wrong)}, doRestore, time.Time{}},
		{"the clock was set back by a year", view{recovered: true, record: fromTheFuture, disk: seen(wrong)}, doRestore, time.Time{}},
		{"nobody knows what an interrupted command wrote: not drift", view{recovered: true, record: interrupted, disk: seen(wrong)}, doNothing, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := c.view
			v.now, v.maxReverts = now, 2
			if v.mode == "" {
				v.mode = RevertSplice
			}
			got := plan(v)
			if got.deed != c.want || !got.again.Equal(c.again) {
				t.Errorf("plan: deed %d again %v, want %d again %v", got.deed, got.again, c.want, c.again)
			}
		})
	}
}

func TestPlanActivation(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	later, latest := now.Add(time.Minute), now.Add(time.Hour)
	for _, c := range []struct {
		name      string
		instances []activationView
		step      string
		forWhom   []int
		again     time.Time
	}{
		{"nothing to do", []activationView{{}, {}}, "", nil, time.Time{}},
		{"one reload for all", []activationView{{steps: steps("reload", "restart a")}, {}, {steps: steps("reload", "restart c")}}, "reload", []int{0, 2}, time.Time{}},
		{"a step of one's own", []activationView{{steps: steps("restart a")}, {steps: steps("restart b")}}, "restart a", []int{0}, time.Time{}},
		{"another is being applied: wait for it", []activationView{{steps: steps("reload")}, {applying: true}}, "", nil, time.Time{}},
		{"not before it is on record", []activationView{{steps: steps("reload"), unsaved: true}}, "", nil, time.Time{}},
		{"held", []activationView{{steps: steps("reload"), due: latest}, {steps: steps("reload"), due: later}}, "", nil, later},
		{"one held, one not", []activationView{{steps: steps("reload"), due: later}, {steps: steps("reload")}}, "reload", []int{1}, later},
	} {
		t.Run(c.name, func(t *testing.T) {
			step, forWhom, again := planActivation(now, c.instances)
			if step != stepOf(c.step) || !slices.Equal(forWhom, c.forWhom) || !again.Equal(c.again) {
				t.Errorf("%q for %v again %v, want %q for %v again %v", step, forWhom, again, c.step, c.forWhom, c.again)
			}
		})
	}
}

// Retries spread out fully, and none waits for longer than the cap.
func TestRetrySpreads(t *testing.T) {
	now := time.Now()
	longest, shortest := time.Duration(0), time.Hour
	for range 2000 {
		r := retry{attempt: 20}
		r.fail(now, "again")
		wait := r.at.Sub(now)
		longest, shortest = max(longest, wait), min(shortest, wait)
	}
	if longest > lastRetry+time.Millisecond || longest < lastRetry*9/10 || shortest > lastRetry/10 {
		t.Errorf("waits from %s to %s, want them all over 0 to %s", shortest, longest, lastRetry)
	}
	var first retry
	first.fail(now, "once")
	if wait := first.at.Sub(now); wait > firstRetry+time.Millisecond {
		t.Errorf("the first wait is %s", wait)
	}
}

func stepOf(text string) (s credential.Step) {
	_ = s.UnmarshalText([]byte(text))
	return s
}

func steps(texts ...string) (all []credential.Step) {
	for _, text := range texts {
		all = append(all, stepOf(text))
	}
	return all
}
