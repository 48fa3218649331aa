package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// Members of control_group may ask for status and history, and order nothing. Others may not even ask.
func TestControlGroup(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	const daemon, member, other = 41001, 41002, 41003
	w := world.New(t, container.Options{User: daemon, Settings: "control_group: \"41001\""}) // its user's own group
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Must(os.Chmod(w.Config, 0o644))
	as := func(uid uint32, groups []uint32, status int, says string, args ...string) {
		t.Helper()
		c := exec.CommandContext(w.Ctx, world.Plain().Command, append([]string{"--config", w.Config}, args...)...)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		c.Run()
		w.Printed.Write(out.Bytes())
		if got := c.ProcessState.ExitCode(); got != status || !strings.Contains(out.String(), says) {
			t.Errorf("user %d, %v: ended with %d, want %d and %q: %s", uid, args, got, status, says, &out)
		}
	}
	members := []uint32{daemon}
	as(member, members, 0, "in_sync", "status")
	as(member, members, 0, `"state":"in_sync"`, "status", "--json")
	as(member, members, 0, "campaign_credsync_build_info", "status", "--prometheus")
	as(member, members, 0, "applied", "history")
	orders := [][]string{{"sync"}, {"adopt"}, {"pause", "--for", "1h"}, {"resume"}}
	for _, order := range orders {
		as(member, members, 4, "not for members of control_group; run it with sudo", order...)
	}
	for _, question := range append(orders, []string{"status"}, []string{"history"}) {
		as(other, nil, 4, "run it with sudo, or join control_group", question...)
	}
	as(daemon, nil, 0, "paused until", "pause", "--for", "1h")
	as(member, members, 3, "paused", "status")
	as(0, nil, 0, "not paused", "resume")
	w.InSync(1)
	w.Exits(0, "by uid 41001", "history")
	w.Ran(1, "end", "set")

	// A group that is not there, or that the daemon's user may not give a file to, is told at the start.
	w.Stop()
	for _, c := range []struct{ group, says string }{
		{"no-such-group", "control_group: there is no group no-such-group in /etc/group; name one that is there, or its number"},
		{"41003", "the daemon's user has to be a member of it"},
	} {
		w.Reconfigured(func(o *container.Options) { o.Settings = "control_group: \"" + c.group + "\"" })
		w.Must(os.Chown(w.Config, daemon, daemon))
		d, err := w.Start(nil)
		w.Must(err)
		<-d.Ended()
		if d.ExitStatus() != 1 {
			t.Errorf("%s: it ended with %d", c.group, d.ExitStatus())
		}
		world.Says(t, d.Log(), c.says)
	}
}
