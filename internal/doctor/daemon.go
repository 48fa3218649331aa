package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/history"
	"campaign-credsync/sync"
	"campaign-credsync/sync/event"
)

// askTime is how long the daemon may take to answer: the checks that need its answer have some time left then.
const askTime = 3 * time.Second

// daemon is what the running daemon says of itself.
type daemon struct {
	status control.Status
	pid    int   // 0: not known
	err    error // why nothing is known: control.ErrNoDaemon, control.ErrMayNotAsk, or another
}

// ask asks the daemon, for the first check that needs it.
func (x *examination) ask(ctx context.Context) daemon {
	x.askOnce.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		socket := x.Config.Config.ControlSocket
		x.asked.status, x.asked.err = control.AskStatus(ctx, socket)
		if x.asked.err == nil {
			x.asked.pid, _ = control.DaemonPID(ctx, socket)
		}
	})
	return x.asked
}

// daemon tells whether the daemon runs, and what it warns of.
func (x *examination) daemon(ctx context.Context) []Finding {
	now := x.ask(ctx)
	switch {
	case errors.Is(now.err, control.ErrNoDaemon):
		return []Finding{warn("systemctl start campaign-credsync", "no daemon runs: nothing is applied and nothing reverted")}
	case errors.Is(now.err, control.ErrMayNotAsk):
		return []Finding{{Level: Unseen, Found: "this user may not ask the daemon", Remedy: asRoot + ", or join control_group", mayNotAsk: true}}
	case now.err != nil:
		return []Finding{failed("see journalctl -u campaign-credsync", "the daemon does not answer: %v", now.err)}
	}
	var all []Finding
	for _, w := range now.status.Warnings {
		all = append(all, warn("", "%s: %s", w.Code, w.Text))
	}
	if len(all) == 0 {
		all = append(all, well("version %s runs since %s", now.status.Daemon.Version, now.status.Daemon.StartedAt.UTC().Format(time.RFC3339)))
	}
	return all
}

// instances tells of those that are not in sync, as the daemon sees them.
func (x *examination) instances(ctx context.Context) (all []Finding) {
	for _, i := range x.ask(ctx).status.Instances {
		f := warn(control.Remedy(i.Reason), "%s, %s", i.State, i.Reason)
		switch i.State {
		case sync.StateInSync:
			f = well("in sync with version %d", i.AppliedVersion)
		case sync.StateDegraded, sync.StateDrift, sync.StateBlocked:
			f.Level = Error
		}
		if i.LastError != "" {
			f.Found += ": " + i.LastError
		}
		all = append(all, of(i.Name, f)...)
	}
	return all
}

// writerTime is how far back other writers of the file are looked for.
const writerTime = 24 * time.Hour

// otherWriter looks in the history for drift: somebody else writes the credential.
func (x *examination) otherWriter(ctx context.Context) []Finding {
	events, err := x.events(ctx)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, control.ErrMayNotAsk) {
		return []Finding{unseen(asRoot, "this user may not read the history")}
	} else if err != nil {
		return []Finding{failed("see whether state_dir can be read", "the history cannot be read: %v", err)}
	}
	times, last := map[string]int{}, map[string]event.Event{}
	for _, e := range events {
		if time.Since(e.Time) < writerTime && (e.Kind == event.DriftReverted || e.Kind == event.DriftLeft) {
			times[e.Instance] += max(e.Count, 1)
			last[e.Instance] = e
		}
	}
	return x.each(func(i config.Instance) []Finding {
		n, e := times[i.Name], last[i.Name]
		if n == 0 {
			return []Finding{well("nobody else changed the credential in the last 24 h")}
		}
		var what []string
		for _, c := range e.Attributes {
			what = append(what, c.Name+" "+c.Change)
		}
		return []Finding{warn("campaign-credsync history --since 24h --instance "+i.Name, "somebody else changed the credential %d times in the last 24 h, last at %s (%s; file of %s)",
			n, e.Time.UTC().Format(time.RFC3339), strings.Join(what, ", "), e.FileOwner)}
	})
}

// events are those of the history, from the daemon or, where there is none, from its files.
func (x *examination) events(ctx context.Context) (all []event.Event, err error) {
	switch now := x.ask(ctx); {
	case errors.Is(now.err, control.ErrNoDaemon):
		all, _, err = history.Read(x.Config.Config.StateDir, func(event.Event) bool { return true })
		return all, err
	case now.err != nil:
		return nil, now.err
	}
	lines, err := control.AskHistory(ctx, x.Config.Config.ControlSocket)
	for line := range strings.Lines(string(lines)) {
		var e event.Event
		if json.Unmarshal([]byte(line), &e) == nil {
			all = append(all, e)
		}
	}
	return all, err
}

// coreDumps looks at what would become of the memory of a program that crashes: nlserver's holds the secret while it is applied.
func (x *examination) coreDumps(ctx context.Context) []Finding {
	pattern, err := readText("/proc/sys/kernel/core_pattern")
	if err != nil {
		return []Finding{notRead("/proc/sys/kernel/core_pattern", err)}
	}
	var all []Finding
	if program, piped := strings.CutPrefix(pattern, "|"); piped && !strings.Contains(program, "systemd-coredump") {
		name, _, _ := strings.Cut(program, " ")
		all = append(all, warn("sysctl -w kernel.core_pattern='|/lib/systemd/systemd-coredump %P %u %g %s %t %c %h', or a file name",
			"core dumps go to %s, which may take them whatever LimitCORE says, with the secret of an nlserver that crashes in an apply", name))
	}
	all = append(all, x.daemonDumps(x.ask(ctx).pid)...)
	if len(all) == 0 {
		all = append(all, well("no core dump of the daemon, and none of its nlserver"))
	}
	return all
}

// daemonDumps looks at the running daemon's own settings.
func (x *examination) daemonDumps(pid int) (all []Finding) {
	if pid == 0 {
		return nil
	}
	const remedy = "use the unit in packaging/systemd (LimitCORE=0, GODEBUG=clobberfree=1), then: systemctl restart campaign-credsync"
	p := process{pid: pid}
	limits, err := readText(p.path("limits"))
	if err != nil {
		all = append(all, notRead(p.path("limits"), err))
	}
	for line := range strings.Lines(limits) {
		if most, ok := strings.CutPrefix(line, "Max core file size"); ok && strings.Fields(most)[0] != "0" {
			all = append(all, warn(remedy, "the daemon has a limit of core files other than 0"))
		}
	}
	environment, err := os.ReadFile(p.path("environ"))
	switch {
	case err != nil:
		all = append(all, unseen(asRoot, "whether the daemon has GODEBUG=clobberfree=1 is not seen"))
	case !clobbers(environment):
		all = append(all, warn(remedy, "the daemon runs without GODEBUG=clobberfree=1, so an applied secret may stay in its memory"))
	}
	return all
}

func clobbers(environment []byte) bool {
	return slices.ContainsFunc(strings.Split(string(environment), "\x00"), func(entry string) bool {
		value, ok := strings.CutPrefix(entry, "GODEBUG=")
		return ok && slices.Contains(strings.Split(value, ","), "clobberfree=1")
	})
}

// controlGroup looks for modules of Campaign in the daemon's control group: its stop, its limits and its sandbox would be theirs.
func (x *examination) controlGroup(ctx context.Context) []Finding {
	now := x.ask(ctx)
	pid := now.pid
	switch {
	case errors.Is(now.err, control.ErrNoDaemon):
		return []Finding{well("no daemon runs, so nothing is in its control group")}
	case pid == 0:
		return []Finding{unseen(asRoot, "which process the daemon is, is not seen")}
	}
	group, err := groupOf(pid)
	switch {
	case err != nil:
		return []Finding{notRead(process{pid: pid}.path("cgroup"), err)}
	case !strings.HasSuffix(group, ".service"):
		return []Finding{well("the daemon runs outside of a unit")}
	}
	var all []Finding
	everybody := processes()
	for _, p := range everybody {
		if in, err := groupOf(p.pid); err != nil || in != group || p.pid == pid || descends(everybody, p, pid) {
			continue
		}
		all = append(all, warn("systemctl enable --now campaign-credsync-activate.socket; then, as Campaign's user in a shell of its own: nlserver restart of that module",
			"%s (pid %d) runs in the control group of %s, under its sandbox and limits", p.comm, p.pid, path.Base(group)))
	}
	if len(all) == 0 {
		all = append(all, well("%s holds the daemon only", path.Base(group)))
	}
	return all
}

// descends reports whether p is a child of pid's, or a child of one: what the daemon runs now.
func descends(everybody []process, p process, pid int) bool {
	for range len(everybody) {
		if p.parent == pid {
			return true
		}
		n := slices.IndexFunc(everybody, func(other process) bool { return other.pid == p.parent })
		if n < 0 {
			return false
		}
		p = everybody[n]
	}
	return false
}

// groupOf is a process's control group, as systemd keeps it.
func groupOf(pid int) (string, error) {
	text, err := readText(process{pid: pid}.path("cgroup"))
	group := ""
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && (fields[0] == "0" || fields[1] == "name=systemd") && fields[2] != "/" {
			group = fields[2]
		}
	}
	if err != nil {
		return "", fmt.Errorf("its control group: %w", err)
	}
	return group, nil
}
