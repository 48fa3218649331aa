package sync

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/jitter"
	"campaign-credsync/sync/state"
)

// rules are what the decision depends on beside the instance.
type rules struct {
	mode       RevertMode
	noCommands bool
}

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
	interrupted.Applying = &two
	owing := applied
	owing.RevertOwesActivation = true
	tired := applied
	tired.Reverts = []time.Time{now.Add(-time.Minute), now.Add(-time.Second)}
	rested := applied
	rested.Reverts = []time.Time{now.Add(-61 * time.Minute), now.Add(-time.Second)}
	fromTheFuture := applied
	fromTheFuture.Reverts = []time.Time{now.AddDate(1, 0, 0), now.AddDate(1, 0, 0)}
	seen := func(a credential.Attributes) file { return file{recovered: true, checkedAt: now, seen: a} }
	waiting := &pending{version: two}
	same := &pending{version: two, digest: "digest"}

	cases := []struct {
		name     string
		instance instance
		rules    rules
		want     action
		// again is when the question comes up again by itself
		again time.Time
	}{
		{"at start, what is left behind comes first", instance{wanted: wanted{pending: waiting}}, rules{}, actionRecover, time.Time{}},
		{"an earlier command still runs", instance{file: file{recovery: retry{at: later}}}, rules{}, actionNone, later},
		{"nothing is known of the disk", instance{file: file{recovered: true}}, rules{}, actionLook, time.Time{}},
		{"something may have changed: look and put back", instance{record: record{Record: applied}, file: file{recovered: true, checkedAt: now, stale: true}}, rules{}, actionRestore, time.Time{}},
		{"the same, but the brake is on", instance{record: record{Record: tired}, file: file{recovered: true, checkedAt: now, stale: true}}, rules{}, actionLook, time.Time{}},
		{"the same, but drift is only reported", instance{record: record{Record: applied}, file: file{recovered: true, checkedAt: now, stale: true}}, rules{mode: RevertAlert}, actionLook, time.Time{}},
		{"in sync", instance{record: record{Record: applied}, file: seen(right)}, rules{}, actionNone, time.Time{}},
		{"a version waits", instance{record: record{Record: applied}, file: seen(right), wanted: wanted{pending: waiting}}, rules{}, actionApply, time.Time{}},
		{"a version waits, and nothing was ever applied", instance{file: seen(wrong), wanted: wanted{pending: waiting}}, rules{}, actionApply, time.Time{}},
		{"a version waits for its retry", instance{record: record{Record: applied}, file: seen(right), wanted: wanted{pending: waiting, retry: retry{at: later}}}, rules{}, actionNone, later},
		{"a version waits for its retry, and the last try did damage", instance{record: record{Record: applied}, file: seen(wrong), wanted: wanted{pending: waiting, retry: retry{at: later}}}, rules{}, actionRestore, later},
		{"a version waits for an activation to end", instance{record: record{Record: applied}, file: seen(right), wanted: wanted{pending: waiting}}, rules{noCommands: true}, actionNone, time.Time{}},
		{"the same, and drift was found that the processes may have read", instance{record: record{Record: applied}, file: seen(wrong), wanted: wanted{pending: waiting}, Instance: Instance{Steps: steps("reload")}}, rules{noCommands: true}, actionRecordIntent, time.Time{}},
		{"what that revert owes is on record", instance{record: record{Record: owing}, file: seen(wrong), Instance: Instance{Steps: steps("reload")}}, rules{}, actionRestore, time.Time{}},
		{"a version waits for the record to be written", instance{record: record{Record: applied, saving: true}, file: seen(right), wanted: wanted{pending: waiting}}, rules{}, actionNone, time.Time{}},
		{"a new version holds the same credential", instance{record: record{Record: applied}, file: seen(right), wanted: wanted{pending: same}}, rules{}, actionRecordSame, time.Time{}},
		{"the same, but nobody knows what is on disk", instance{record: record{Record: interrupted}, file: seen(wrong), wanted: wanted{pending: same}}, rules{}, actionApply, time.Time{}},
		{"a schedule wants it applied again", instance{record: record{Record: applied}, file: seen(right), wanted: wanted{pending: same, force: forSchedule}}, rules{}, actionApply, time.Time{}},
		{"the file is missing", instance{record: record{Record: applied}, file: file{recovered: true, checkedAt: now, err: credential.ErrMissing, lookAt: later}, wanted: wanted{pending: waiting}}, rules{}, actionNone, later},
		{"the file was missing a while ago", instance{record: record{Record: state.Record{}}, file: file{recovered: true, checkedAt: now, err: credential.ErrMissing, lookAt: now}}, rules{}, actionLook, time.Time{}},
		{"drift", instance{record: record{Record: applied}, file: seen(wrong)}, rules{}, actionRestore, time.Time{}},
		{"an empty attribute is drift", instance{record: record{Record: applied}, file: seen(empty)}, rules{}, actionRestore, time.Time{}},
		{"a missing element is drift", instance{record: record{Record: applied}, file: seen(nil)}, rules{}, actionRestore, time.Time{}},
		{"an attribute that was absent is drift", instance{record: record{Record: applied}, file: seen(extra)}, rules{}, actionRestore, time.Time{}},
		{"drift waits for its retry", instance{record: record{Record: applied}, file: file{recovered: true, checkedAt: now, seen: wrong, restore: retry{at: later}}}, rules{}, actionNone, later},
		{"drift is only reported", instance{record: record{Record: applied}, file: seen(wrong)}, rules{mode: RevertAlert}, actionNone, time.Time{}},
		{"drift is put back by nlserver, for which the credential is needed", instance{record: record{Record: applied}, file: seen(wrong)}, rules{mode: RevertApply}, actionFetch, time.Time{}},
		{"a splice cannot work", instance{record: record{Record: applied}, file: file{recovered: true, checkedAt: now, seen: wrong, cannotSplice: true}}, rules{}, actionFetch, time.Time{}},
		{"the brake is on", instance{record: record{Record: tired}, file: seen(wrong)}, rules{}, actionNone, now.Add(59 * time.Minute)},
		{"the brake has let go", instance{record: record{Record: rested}, file: seen(wrong)}, rules{}, actionRestore, time.Time{}},
		{"the clock was set back by a year", instance{record: record{Record: fromTheFuture}, file: seen(wrong)}, rules{}, actionRestore, time.Time{}},
		{"nobody knows what an interrupted command wrote: not drift", instance{record: record{Record: interrupted}, file: seen(wrong)}, rules{}, actionNone, time.Time{}},
	}
	for i := range cases {
		c := &cases[i]
		t.Run(c.name, func(t *testing.T) {
			if c.rules.mode == "" {
				c.rules.mode = RevertSplice
			}
			c.instance.source = &source{}
			d := &Daemon{cfg: Config{Revert: c.rules.mode, MaxReverts: 2}}
			if c.rules.noCommands {
				d.activating = &step{}
			}
			got := d.plan(&c.instance, now)
			if got.action != c.want || !got.again.Equal(c.again) {
				t.Errorf("plan: action %d again %v, want %d again %v", got.action, got.again, c.want, c.again)
			}
		})
	}
}

func TestPlanActivation(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	soon, latest := now.Add(time.Minute), now.Add(time.Hour)
	due := func(texts ...string) *instance {
		in := &instance{}
		in.record.Activation = steps(texts...)
		return in
	}
	at := func(in *instance, at time.Time) *instance { in.activation.retry.at = at; return in }
	applying, unsaved := due(), due("reload")
	applying.busy, unsaved.record.unsaved = actionApply, true
	for _, c := range []struct {
		name      string
		instances []*instance
		step      string
		forWhom   []int
		again     time.Time
	}{
		{"nothing to do", []*instance{due(), due()}, "", nil, time.Time{}},
		{"one reload for all", []*instance{due("reload", "restart a"), due(), due("reload", "restart c")}, "reload", []int{0, 2}, time.Time{}},
		{"a step of one's own", []*instance{due("restart a"), due("restart b")}, "restart a", []int{0}, time.Time{}},
		{"another is being applied: wait for it", []*instance{due("reload"), applying}, "", nil, time.Time{}},
		{"not before it is on record", []*instance{unsaved}, "", nil, time.Time{}},
		{"held", []*instance{at(due("reload"), latest), at(due("reload"), soon)}, "", nil, soon},
		{"one held, one not", []*instance{at(due("reload"), soon), due("reload")}, "reload", []int{1}, soon},
	} {
		t.Run(c.name, func(t *testing.T) {
			step, members, again := (&Daemon{instances: c.instances}).planActivation(now)
			var forWhom []int
			for _, in := range members {
				forWhom = append(forWhom, slices.Index(c.instances, in))
			}
			if step != stepOf(c.step) || !slices.Equal(forWhom, c.forWhom) || !again.Equal(c.again) {
				t.Errorf("%q for %v again %v, want %q for %v again %v", step, forWhom, again, c.step, c.forWhom, c.again)
			}
		})
	}
}

// Retries spread out fully, and none waits for longer than the cap.
func TestRetrySpreads(t *testing.T) {
	now, log := time.Now(), slog.New(slog.DiscardHandler)
	longest, shortest := time.Duration(0), time.Hour
	for range 2000 {
		r := retry{attempt: 20}
		r.failed(log, now, errors.New("again"), report{})
		wait := r.at.Sub(now)
		longest, shortest = max(longest, wait), min(shortest, wait)
	}
	if longest > jitter.Last+time.Millisecond || longest < jitter.Last*9/10 || shortest > jitter.Last/10 {
		t.Errorf("waits from %s to %s, want them all over 0 to %s", shortest, longest, jitter.Last)
	}
	var first retry
	first.failed(log, now, errors.New("once"), report{})
	if wait := first.at.Sub(now); wait > jitter.First+time.Millisecond {
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
