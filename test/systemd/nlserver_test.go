//go:build systemd

package systemd

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// writing has nlserver stop in the middle of writing a new version, the file empty, until it is released.
func (h *host) writing(t *testing.T) (version int, secret string, run nlserverRun) {
	t.Helper()
	seen := len(h.runs(t))
	h.faults(t, `{"write_delay":"10m","times":1}`)
	version, secret = h.rotate(t)
	run = h.awaitRun(t, "nlserver to write", seen, func(r nlserverRun) bool { return r.Event == "waiting" })
	if h.ciphertext(t) != "" {
		t.Fatal("nlserver waits and has not emptied the file")
	}
	return version, secret, run
}

// testStopWhileWriting: an nlserver that rewrites the file with the database login is neither cut off nor left alone.
func testStopWhileWriting(t *testing.T, h *host) {
	h.awaitApplied(t, 1)
	seen := len(h.runs(t))
	version, secret, run := h.writing(t)

	status := h.run(t, "cat", "/proc/"+strconv.Itoa(run.PID)+"/status")
	uid := strings.TrimSpace(h.run(t, "id", "-u", "neolane"))
	for name, want := range map[string]string{
		"Uid:": strings.Join([]string{uid, uid, uid, uid}, "\t"), "NoNewPrivs:": "1", "CapEff:": "0000000000000000", "CapBnd:": "0000000000000000",
	} {
		if got := field(status, name); got != want {
			t.Errorf("%s %q of nlserver, want %q", name, got, want)
		}
	}

	began := time.Now()
	stopped := h.start(t, "systemctl", "stop", unit)
	h.awaitUnit(t, "a unit that stops", func(properties map[string]string) bool { return properties["ActiveState"] == "deactivating" })
	h.release(t)
	if o := stopped(); o.status != 0 {
		t.Fatalf("stop: %v", o)
	}
	t.Logf("stopped in %s", time.Since(began).Round(time.Millisecond))
	h.stoppedWell(t)
	var ended bool
	for _, r := range h.runs(t)[seen:] {
		ended = ended || r.PID == run.PID && r.Event == "end" && r.ExitCode != nil && *r.ExitCode == 0
	}
	if !ended {
		t.Error("the unit is stopped and nlserver has not come to its end")
	}
	if !h.holds(t, secret) {
		t.Error("the unit is stopped and the file does not hold what nlserver was writing")
	}
	h.faults(t, "")
	h.run(t, "systemctl", "start", unit)
	h.awaitApplied(t, version)
}

// testKill: systemd starts the daemon again, which waits for the nlserver that outlived the first one.
func testKill(t *testing.T, h *host) {
	pid := h.awaitApplied(t, 1)
	seen := len(h.runs(t))
	restarts := h.show(t)["NRestarts"]
	version, secret, run := h.writing(t)
	nlserver := strconv.Itoa(run.PID)

	mark := h.journalEnd(t)
	began := time.Now()
	h.run(t, "sh", "-c", "kill -KILL "+pid)
	await(t, "the end of the daemon", patience, func() bool { return !h.alive(pid) })
	properties := h.awaitUnit(t, "another daemon", func(properties map[string]string) bool {
		return properties["MainPID"] != "0" && properties["MainPID"] != pid
	})
	t.Logf("another daemon after %s, the unit is %s (%s)", time.Since(began).Round(100*time.Millisecond), properties["ActiveState"], properties["SubState"])
	if !h.alive(nlserver) {
		t.Fatal("nlserver did not outlive the daemon until the restart")
	}
	h.awaitJournal(t, mark, "still running")
	h.release(t)
	await(t, "the end of nlserver", patience, func() bool {
		runs := h.runs(t)[seen:]
		if !h.alive(nlserver) {
			return true
		}
		for _, r := range runs { // all of them began while it was there
			if r.Kind == "set" && r.PID != run.PID {
				t.Errorf("a second nlserver while the first one is writing: %+v", r)
			}
		}
		return false
	})
	t.Logf("nlserver ended after %s", time.Since(began).Round(100*time.Millisecond))
	if !h.holds(t, secret) && !slices.ContainsFunc(h.runs(t)[seen:], func(r nlserverRun) bool { return r.Kind == "set" && r.PID != run.PID }) {
		t.Error("nlserver has ended, no other one writes, and the file does not hold what it was writing")
	}
	h.faults(t, "")
	h.awaitApplied(t, version)
	t.Logf("in sync again after %s", time.Since(began).Round(100*time.Millisecond))
	if !h.holds(t, secret) {
		t.Error("in sync, and the file does not hold the secret")
	}
	if got := h.show(t)["NRestarts"]; got == restarts {
		t.Errorf("still %s restarts", got)
	}
}

// testModulesOutlive: what "nlserver restart" leaves running is Campaign, and not to be ended with the unit.
func testModulesOutlive(t *testing.T, h *host) {
	h.awaitApplied(t, 1)
	h.reconfigure(t, "restart: []", "restart: [pipelined]")
	h.faults(t, `{"on":["restart"],"fork_child":"10m"}`)
	seen := len(h.runs(t))
	version, _ := h.rotate(t)
	module := strconv.Itoa(h.awaitRun(t, "the module", seen, func(r nlserverRun) bool { return r.Event == "child" }).ChildPID)
	h.awaitApplied(t, version)

	mark := h.journalEnd(t)
	h.run(t, "systemctl", "stop", unit)
	h.stoppedWell(t)
	if !h.alive(module) {
		t.Fatal("the module ended with the unit")
	}
	h.run(t, "systemctl", "start", unit)
	h.awaitApplied(t, version)
	if !h.alive(module) {
		t.Fatal("the module ended with the next start of the unit")
	}
	h.noWarnings(t, mark)
	h.run(t, "sh", "-c", "kill -KILL "+module)
	h.faults(t, "")
	h.reconfigure(t, "restart: [pipelined]", "restart: []")
	h.awaitApplied(t, version)
}
