//go:build systemd

package systemd

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"campaign-credsync/test/container"
)

const (
	activationSocket = "/run/campaign-credsync-activate.sock"
	campaignUnit     = "nlserver6.service"
)

// startCampaign starts Campaign's modules, as Campaign's own unit would.
func (h *host) startCampaign(t *testing.T, modules ...string) {
	t.Helper()
	h.write(t, "/etc/systemd/system/"+campaignUnit, fmt.Sprintf(`[Service]
User=neolane
Group=neolane
WorkingDirectory=%[1]s
Environment="STANDIN_MODULES=%[2]s"
ExecStart=/bin/sh -c '. %[1]s/env.sh; exec %[1]s/bin/nlserver --standin-watchdog %[1]s'
`, campaignHome, strings.Join(modules, " ")), 0o644)
	h.run(t, "systemctl", "daemon-reload")
	h.run(t, "systemctl", "restart", campaignUnit)
	for _, m := range modules {
		h.awaitModule(t, m, "")
	}
}

// awaitModule waits until a module runs in another process than before, and returns it.
func (h *host) awaitModule(t *testing.T, name, before string) (pid string) {
	t.Helper()
	await(t, "module "+name, patience, func() bool {
		text, _ := os.ReadFile(h.outsidePath(campaignHome + "/var/standin/modules/" + name + ".pid"))
		pid = string(text)
		return pid != "" && pid != before && h.alive(pid)
	})
	return pid
}

// surroundings is all that a process has of whoever started it, by name.
func (h *host) surroundings(t *testing.T, pid string) map[string]string {
	t.Helper()
	of := map[string]string{}
	status := h.run(t, "cat", "/proc/"+pid+"/status")
	for _, name := range []string{"Umask", "Uid", "Gid", "Groups", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"} {
		of[name] = field(status, name+":")
	}
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts", "time"} {
		of["namespace "+name] = strings.TrimSpace(h.run(t, "readlink", "/proc/"+pid+"/ns/"+name))
	}
	for line := range strings.Lines(h.run(t, "cat", "/proc/"+pid+"/limits")) {
		if len(line) > 26 {
			of["limit "+strings.TrimSpace(line[:26])] = strings.Join(strings.Fields(line[26:]), " ")
		}
	}
	of["oom_score_adj"] = strings.TrimSpace(h.run(t, "cat", "/proc/"+pid+"/oom_score_adj"))
	of["working directory"] = strings.TrimSpace(h.run(t, "readlink", "/proc/"+pid+"/cwd"))
	stat := h.run(t, "cat", "/proc/"+pid+"/stat")
	of["nice"] = strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])[16]
	return of
}

// isCampaigns demands that a module has nothing of ours, but all that Campaign's unit gives to its modules.
func (h *host) isCampaigns(t *testing.T, name, pid string) {
	t.Helper()
	of := h.surroundings(t, pid)
	for key, want := range h.surroundings(t, strings.TrimSpace(h.run(t, "systemctl", "show", "--value", "-p", "MainPID", campaignUnit))) {
		if of[key] != want {
			t.Errorf("%s of %s is %s, Campaign's own is %s", key, name, of[key], want)
		}
	}
	if group := h.run(t, "cat", "/proc/"+pid+"/cgroup"); strings.Contains(group, unit) {
		t.Errorf("%s is in the daemon's control group: %s", name, group)
	} else {
		t.Logf("%s is in %s", name, group[strings.LastIndexByte(strings.TrimSpace(group), '\n')+1:])
	}
	for line := range strings.Lines(h.run(t, "sh", "-c", "cd /proc/"+pid+"/fd; for f in *; do echo $f $(readlink $f); done")) {
		fd, target, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.Atoi(fd); err != nil || n <= 2 && target == os.DevNull || strings.HasPrefix(target, "anon_inode:") || target == "" {
			continue // those of Go's runtime
		}
		t.Errorf("descriptor %s of %s is %s", fd, name, target)
	}
}

// testOutside: a module that is restarted is Campaign's, whoever starts it, and no end of the daemon touches it.
func testOutside(t *testing.T, h *host) {
	modules := []string{"web", "pipelined@prod"}
	h.startCampaign(t, modules...)
	defer h.run(t, "systemctl", "stop", campaignUnit)
	h.reconfigure(t, "restart: []", "restart: [web, pipelined]")
	defer h.reconfigure(t, "restart: [web, pipelined]", "restart: []")
	defer h.faults(t, "")
	for line := range strings.Lines(h.try(t, "systemd-analyze", "verify", "campaign-credsync-activate.socket").stderr) {
		if strings.Contains(line, "campaign-credsync") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	before := map[string]string{}
	for _, m := range modules {
		before[m] = h.awaitModule(t, m, "")
	}
	for _, mode := range []string{"watchdog", "child"} { // this order, as what is left is killed by its group
		h.faults(t, `{"modules":"`+mode+`"}`)
		mark := h.journalEnd(t)
		version, _ := h.rotate(t)
		h.awaitApplied(t, version)
		for _, m := range modules {
			before[m] = h.awaitModule(t, m, before[m])
			h.isCampaigns(t, m+" by "+mode, before[m])
		}
		if status := h.run(t, "campaign-credsync", "status", "--json"); !strings.Contains(status, `"proven":true`) {
			t.Errorf("the modules run again, and the status is %s", status)
		}
		h.outlivesTheDaemon(t, version, before)
		h.noFailedActivation(t)
		h.noWarnings(t, mark)
	}
	for _, m := range modules {
		h.run(t, "sh", "-c", "kill "+before[m])
	}
	h.noActivationUnits(t)
	h.isWarnedOfItsGroup(t)
}

// isWarnedOfItsGroup has the daemon itself restart a module that nlserver forks: it is in the daemon's control group, and that is said as
// long as it is so.
func (h *host) isWarnedOfItsGroup(t *testing.T) {
	t.Helper()
	h.startCampaign(t, "web", "pipelined@prod")
	web, pipelined := h.awaitModule(t, "web", ""), h.awaitModule(t, "pipelined@prod", "")
	h.reconfigure(t, "via: auto ", "via: direct ")
	version, _ := h.rotate(t)
	h.awaitApplied(t, version)
	web, pipelined = h.awaitModule(t, "web", web), h.awaitModule(t, "pipelined@prod", pipelined)
	status := h.try(t, "campaign-credsync", "status", "--json").stdout
	if !strings.Contains(status, `"module_in_our_group"`) || !strings.Contains(status, "web, pipelined@prod runs in") || !strings.Contains(status, `"proven":false`) {
		t.Errorf("modules in the daemon's control group, and the status is %s", status)
	}
	h.run(t, "sh", "-c", "kill "+web+" "+pipelined)
	await(t, "no warning", patience, func() bool {
		return !strings.Contains(h.try(t, "campaign-credsync", "status", "--json").stdout, "module_in_our_group")
	})
	h.reconfigure(t, "via: direct ", "via: auto ")
}

// outlivesTheDaemon ends the daemon in every way.
func (h *host) outlivesTheDaemon(t *testing.T, version int, modules map[string]string) {
	t.Helper()
	for _, end := range [][]string{
		{"systemctl", "stop", unit}, {"systemctl", "restart", unit}, {"systemctl", "kill", "--signal=KILL", unit},
		{"systemctl", "kill", "--signal=ABRT", unit}, // as its watchdog does
		{"systemctl", "restart", "campaign-credsync-activate.socket"},
	} {
		pid := h.awaitApplied(t, version)
		h.run(t, end...)
		if end[2] != "campaign-credsync-activate.socket" {
			await(t, "the end of the daemon", patience, func() bool { return !h.alive(pid) })
		}
		h.run(t, "systemctl", "start", unit)
		h.awaitApplied(t, version)
		for m, pid := range modules {
			if !h.alive(pid) {
				t.Fatalf("%s is gone after %q", m, end)
			}
		}
	}
}

// noActivationUnits demands that no unit of a step is left, failed or not. One whose control group has a module is not unloaded, but
// is no connection of the socket any more.
func (h *host) noActivationUnits(t *testing.T) {
	t.Helper()
	await(t, "no unit of a step of activation", patience, func() bool {
		return !strings.Contains(h.run(t, "systemctl", "list-units", "--all", "--no-legend", "campaign-credsync-activate@*"), "activate@")
	})
	h.noFailedActivation(t)
}

func (h *host) noFailedActivation(t *testing.T) {
	t.Helper()
	await(t, "no connection", patience, func() bool {
		return strings.TrimSpace(h.run(t, "systemctl", "show", "--value", "-p", "NConnections", "campaign-credsync-activate.socket")) == "0"
	})
	if failed := h.run(t, "systemctl", "--failed", "--no-legend"); strings.Contains(failed, "campaign-credsync") {
		t.Errorf("failed units: %s", failed)
	}
}

// testActivationSocket: what is no configured step is refused, and nothing keeps the next good step from working.
func testActivationSocket(t *testing.T, h *host) {
	version, _ := h.rotate(t)
	h.awaitApplied(t, version)
	if rights := h.rights(t, activationSocket); rights != "neolane:neolane 600" {
		t.Errorf("the socket belongs to %s", rights)
	}
	seen := len(h.runs(t))
	for _, asked := range []string{
		`{"step":"restart web"}`, `{"step":"restart pipelined@other"}`, `{"step":"restart"}`, `{"step":"config -setimsoauth:a/b/c/d"}`,
		`{"step":"restart ../../bin/sh"}`, `{"step":"reload","env":"PATH=/tmp"}`, `{"step":"reload"} {"step":"reload"}`, `{}`, `[]`, `reload`, ``,
		strings.Repeat("x", 1<<16), "\x00\xff\xfe", `{"step":"` + strings.Repeat("a", 500) + `"}`,
	} {
		if answer := h.askActivation(t, asked+"\n"); !strings.Contains(answer, `"refused"`) {
			t.Errorf("%.60q is answered %q", asked, answer)
		}
	}
	if answer := h.askActivation(t, `{"step":"relo`); !strings.Contains(answer, `"refused"`) { // and no more
		t.Errorf("half a request is answered %q", answer)
	}
	if runs := h.runs(t)[seen:]; len(runs) > 0 {
		t.Errorf("nlserver ran: %+v", runs)
	}

	began := time.Now()
	var flood sync.WaitGroup
	for range 300 {
		flood.Go(func() {
			conn, err := net.Dial("unix", h.path(activationSocket))
			if err != nil {
				return // refused, as its queue is full
			}
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			conn.Read(make([]byte, 1))
		})
	}
	flood.Wait()
	t.Logf("300 connections that say nothing were over after %s", time.Since(began).Round(time.Millisecond))
	if state := strings.TrimSpace(h.run(t, "systemctl", "is-active", "campaign-credsync-activate.socket")); state != "active" {
		t.Fatalf("the socket is %s", state)
	}
	version, _ = h.rotate(t)
	h.awaitApplied(t, version)
	await(t, "a reload", patience, func() bool {
		for _, r := range h.runs(t)[seen:] {
			if r.Kind == "reload" && r.Event == "end" {
				return true
			}
		}
		return false
	})
	h.noActivationUnits(t)
}

// askActivation sends text to the activation socket and returns all that is answered.
func (h *host) askActivation(t *testing.T, text string) string {
	t.Helper()
	conn, err := net.Dial("unix", h.path(activationSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	conn.Write([]byte(text)) // fails where it is refused before all of it was sent
	var answer json.RawMessage
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return err.Error()
	}
	return string(answer)
}

// testActivationWithoutSocket: without the socket a module that nlserver forks is in the daemon's control group, and that is said.
func testActivationWithoutSocket(t *testing.T, h *host) {
	h.reconfigure(t, "via: auto ", "via: socket ")
	defer h.reconfigure(t, "via: socket ", "via: auto ")
	h.run(t, "systemctl", "stop", "campaign-credsync-activate.socket")
	version, _ := h.rotate(t)
	var s container.Status
	await(t, "a failed activation", patience, func() bool {
		return json.Unmarshal([]byte(h.try(t, "campaign-credsync", "status", "--json").stdout), &s) == nil &&
			len(s.Instances) == 1 && s.Instances[0].Reason == "activation_failed"
	})
	if said := s.Instances[0].LastError; !strings.Contains(said, "systemctl enable --now campaign-credsync-activate.socket") {
		t.Errorf("it says %s", said)
	}
	h.run(t, "systemctl", "start", "campaign-credsync-activate.socket")
	h.awaitApplied(t, version)
}
