package web_test

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync"
	"campaign-credsync/sync/event"
)

// troubled is a status with something wrong everywhere, and text that would like to be markup.
func troubled() control.Status {
	ago := func(d time.Duration) sync.Moment { return sync.Moment{Time: time.Now().Add(-d)} }
	s := control.Status{
		Instances: []sync.InstanceStatus{
			{Name: "prod", State: sync.StateInSync, Since: ago(50 * time.Hour), WantedVersion: 7, AppliedVersion: 7, ActivatedVersion: 7,
				AppliedAt: ago(50 * time.Hour), ActivatedAt: ago(50 * time.Hour), LastCheck: ago(40 * time.Second), RevertedTotal: 12},
			{Name: "stage", State: sync.StateDrift, Reason: "drift_brake", Since: ago(12 * time.Minute), WantedVersion: 7, AppliedVersion: 7,
				ActivatedVersion: 7, AppliedAt: ago(50 * time.Hour), ActivatedAt: ago(50 * time.Hour), LastCheck: ago(40 * time.Second),
				RevertedTotal: 60, LastError: hostile, NextRetryAt: ago(-48 * time.Minute)},
			{Name: "test", State: sync.StatePaused, Reason: "paused", Since: ago(time.Hour), WantedVersion: 3, AppliedVersion: 2,
				ActivatedVersion: 2, AppliedAt: ago(90 * time.Hour), ActivatedAt: ago(90 * time.Hour), LastCheck: ago(40 * time.Second),
				PausedUntil: ago(-3 * time.Hour), LastError: "until 2026-11-28T22:00:00Z by uid 0: upgrade of Campaign"},
		},
		Warnings: []control.Warning{{Code: control.WarnSecretIDEnds,
			Text: "the secret-id ends 2026-12-01T08:00:00Z; put a new one in /etc/campaign-credsync/login/secret_id before"}},
		Vault: control.Vault{Used: true, Reachable: true, LastPoll: ago(12 * time.Second), TokenExpires: ago(-50 * time.Minute),
			SecretIDExpires: ago(-60 * time.Hour)},
	}
	s.Daemon = control.Process{Version: "1.2.0", StartedAt: ago(72 * time.Hour), ConfigFile: "/etc/campaign-credsync/config.yaml", ConfigLoadedAt: ago(5 * time.Hour)}
	return s
}

const hostile = `<script>alert("&")</script>`

func drifted(int) ([]event.Event, error) {
	changed := time.Now().Add(-13 * time.Minute)
	return []event.Event{
		{Time: changed.Add(time.Second), Instance: "stage", Kind: event.Brake, Text: hostile},
		{Time: changed, Instance: "stage", Kind: event.DriftReverted, FileOwner: "puppet", FileChangedAt: &changed,
			Attributes: []event.Change{{Name: "authIMSTAClientSecret", Change: "changed"}, {Name: "authIMSTAId", Change: "removed"}}},
		{Time: changed.Add(-time.Hour), Instance: "prod", Kind: event.DriftReverted, FileOwner: "neolane", FileChangedAt: &changed,
			Attributes: []event.Change{{Name: "authIMSTAClientSecret", Change: "emptied"}}},
	}, nil
}

// What people on call want to know stands on the page; text from outside stays text; nothing needs a script, a style or a picture that
// the policy forbids, and no state is told by colour alone.
func TestPage(t *testing.T) {
	s := serve(t, withStatus(troubled()), drifted, nil)
	status, body, head := s.get(t, "/")
	if status != 200 {
		t.Fatalf("status %d\n%s", status, body)
	}
	for _, want := range []string{
		`<html lang="en">`, "<h1>", "2 of 3 instances not in sync", "<header>", "<main>", "<footer>",
		`<th role="columnheader" scope="col">Activated</th>`, `<th role="rowheader" scope="row">stage</th>`,
		`<span aria-hidden="true">!</span> drift`, "authIMSTAClientSecret changed, authIMSTAId removed", "of puppet, changed 20",
		"no longer reverted", "campaign-credsync history", "campaign-credsync resume", "the secret-id ends 2026-12-01",
		"Secret-id ends in 2 d", "&lt;script&gt;",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("lacks %s", want)
		}
	}
	for _, bad := range []string{"<script", "style=", "onclick", "<img", "%!"} {
		if strings.Contains(body, bad) {
			t.Errorf("has %s", bad)
		}
	}
	if strings.Index(body, "no longer reverted") > strings.Index(body, "emptied") {
		t.Error("the newest event is not the first")
	}
	policy := head.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'; style-src 'self'") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	if t.Failed() {
		t.Log(body)
	}
}

// A history that cannot be read, or whose disk hangs, is left out of the page with the reason, and holds up nothing else.
func TestPageWithoutHistory(t *testing.T) {
	t.Parallel()
	hangs := make(chan struct{})
	defer close(hangs)
	s := serve(t, withStatus(troubled()), func(int) ([]event.Event, error) { <-hangs; return nil, nil }, nil)
	for range 2 {
		if status, body, _ := s.get(t, "/"); status != 200 || !strings.Contains(body, "The history cannot be shown: reading the history") {
			t.Errorf("status %d\n%s", status, body)
		}
	}
	unreadable := serve(t, withStatus(troubled()), func(int) ([]event.Event, error) { return nil, fs.ErrPermission }, nil)
	if status, body, _ := unreadable.get(t, "/"); status != 200 || !strings.Contains(body, "The history cannot be shown: permission denied") {
		t.Errorf("status %d\n%s", status, body)
	}
	if status, _, _ := s.get(t, "/style.css"); status != 200 {
		t.Errorf("style.css: %d", status)
	}
}
