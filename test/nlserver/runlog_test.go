package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

func mustAtoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func digest(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])[:16]
}

func TestRunLog(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"exit_code": 6, "on": ["reload"]}`)
	earliest := time.Now().Truncate(0)
	c.mustRun("config", "-instance:prod", "-setimsjwtauth:"+strings.Join([]string{org, client, account, secret, "a2V5"}, "/"))
	c.run("config", "-reload")
	c.mustRun("restart", "pipelined@prod")
	c.mustRun("config", "-?")
	c.run("config", "-instance:prod", "-setother:"+secret)
	latest := time.Now()

	want := []record{
		{Subcommand: "config", Kind: "set", Instance: "prod", Option: "setimsjwtauth", Fields: 5, SecretSHA256: digest(secret), PrivateKeySHA256: digest("a2V5")},
		{Subcommand: "config", Kind: "reload"},
		{Subcommand: "restart", Kind: "restart", Instance: "prod", Modules: []string{"pipelined@prod"}},
		{Subcommand: "config", Kind: "help"},
		{Subcommand: "config", Instance: "prod", Option: "setother"},
	}
	codes := []int{0, 6, 0, 0, 1}
	records := c.records()
	if len(records) != 2*len(want) {
		t.Fatalf("%d records, want %d:\n%s", len(records), 2*len(want), c.runLog())
	}
	for i, want := range want {
		start, end := records[2*i], records[2*i+1]
		if start.Event != "start" || end.Event != "end" || start.PID == 0 || start.PID != end.PID {
			t.Errorf("run %d: %s of %d, %s of %d", i, start.Event, start.PID, end.Event, end.PID)
		}
		for _, got := range []record{start, end} {
			if got.Subcommand != want.Subcommand || got.Kind != want.Kind || got.Instance != want.Instance ||
				got.Option != want.Option || got.Fields != want.Fields || !slices.Equal(got.Modules, want.Modules) ||
				got.SecretSHA256 != want.SecretSHA256 || got.PrivateKeySHA256 != want.PrivateKeySHA256 || !got.EnvOK {
				t.Errorf("run %d, %s: %+v", i, got.Event, got)
			}
		}
		if start.ExitCode != nil || end.ExitCode == nil || *end.ExitCode != codes[i] {
			t.Errorf("run %d: exit codes %v, %v; want none, %d", i, start.ExitCode, end.ExitCode, codes[i])
		}
		if end.Started.Before(earliest) || end.Ended.Before(end.Started) || end.Ended.After(latest) {
			t.Errorf("run %d: from %v to %v", i, end.Started, end.Ended)
		}
		if took := end.Ended.Sub(end.Started).Microseconds(); end.DurationUS <= 0 || end.DurationUS > took+1000 || end.DurationUS < took-1000 {
			t.Errorf("run %d: %d µs, but %d between start and end", i, end.DurationUS, took)
		}
	}
	if !slices.Contains(records[3].Faults, "exit_code") || slices.Contains(records[5].Faults, "exit_code") {
		t.Errorf("faults of the reload %v, of the restart %v", records[3].Faults, records[5].Faults)
	}
	if strings.Contains(c.runLog(), secret) || strings.Contains(c.runLog(), "a2V5") {
		t.Error("a secret is in the run log")
	}
}

func TestRunLogOfOverlappingRuns(t *testing.T) {
	c := newCampaign(t)
	const runs = 16
	var all sync.WaitGroup
	for range runs {
		cmd := c.command("config", "-?")
		all.Go(func() { cmd.Run() })
	}
	all.Wait()
	count := map[string]int{}
	for _, r := range c.records() { // fails on a line that is not whole
		count[r.Event]++
	}
	if count["start"] != runs || count["end"] != runs {
		t.Errorf("%v, want %d of each", count, runs)
	}
}

// A run that hangs says where, and one that is killed has no end.
func TestRunLogOfAKilledRun(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"hang": true}`)
	run := c.startUntil("hang", "config", "-instance:prod", oauth)
	run.signal(syscall.SIGKILL)
	run.end()
	records := c.records()
	if len(records) != 2 || records[1].Event != "waiting" || records[1].At != "hang" {
		t.Errorf("records %+v", records)
	}
}

func TestNoRunWithoutALog(t *testing.T) {
	c := newCampaign(t)
	// A directory in its place, because root may write to anything.
	if err := os.Mkdir(filepath.Join(c.home, "var", "standin", "runs.jsonl"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := c.read()
	if r := c.run("config", "-instance:prod", oauth); r.code != 78 || c.read() != before {
		t.Errorf("exit %d, want 78 and an unchanged file", r.code)
	}
}
