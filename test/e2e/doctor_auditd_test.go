package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/world"
)

// Rules of auditd in the kernel. They are taken back; audit is not switched on for them.
func TestDoctorOfAuditdInForce(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	if out, err := exec.Command("auditctl", "-s").CombinedOutput(); err != nil {
		skip.Unable(t, fmt.Sprintf("needs auditctl (Debian: auditd), and not to be in a container: %v: %s", err, out))
	}
	// Of this process only: rules for it record nobody else's programs, and no other run of the test sees them.
	uid := 50000 + os.Getpid()%10000
	w := world.New(t, container.Options{User: uid})
	bin := filepath.Join(w.Home, "bin")
	program := filepath.Join(bin, "nlserver")
	key := "test-" + filepath.Base(w.Dir)
	auditctl := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("auditctl", args...).CombinedOutput(); err != nil {
			t.Fatalf("auditctl %q: %v: %s", args, err, out)
		}
	}
	remove := func() { auditctl("-D", "-k", key) }
	t.Cleanup(remove)
	rule := func(text string) { t.Helper(); auditctl(append(strings.Fields(text), "-k", key)...) }

	user, other := fmt.Sprint("uid=", uid), fmt.Sprint("uid=", uid-1)
	all := "-a always,exit -F arch=b64 -S execve -F " + user
	for _, x := range []struct{ rules, level, says string }{
		{"", "ok", "auditctl -l records no arguments"},
		{all, "warning", "auditctl -l records the arguments of programs, so the secret of each apply: " + all + " -F key=" + key},
		{"", "ok", "records no arguments"},
		{"-a always,exit -S all -F " + user, "warning", "-a always,exit -S all -F " + user},
		{"-a always,exit -F arch=b64 -S execve -F a" + other + " -F " + user, "warning", "-F a" + other},
		// auditctl (3.0.9) prints != of exe as =.
		{"-a always,exit -F arch=b64 -S execve -F exe!=/usr/bin/true -F " + user, "warning", "=/usr/bin/true -F " + user},
		{"-a always,exit -F path=" + program + " -F perm=x -F " + user, "warning", "-F path=" + program},
		{"-w " + bin + " -p x", "warning", "-w " + bin + " -p x"},
		{"-w " + program, "warning", "-w " + program + " -p rwxa"},
		{"-a always,exit -F arch=b64 -S execve -F " + other, "ok", "records no arguments"},
		{"-a always,exit -F arch=b64 -S acct -F " + user, "ok", "records no arguments"},
		{"-a always,exit -F arch=b32 -S execve -F " + user, "ok", "records no arguments"},
		{"-a always,exit -F arch=b64 -S execve -F " + user + " -F success=0", "ok", "records no arguments"},
		{"-a always,exit -F dir=" + bin + " -F perm=wa -F " + user, "ok", "records no arguments"},
		{"-w " + bin + " -p wa", "ok", "records no arguments"},
		{"-a never,exit -S all -F exe=" + program + "\n" + all, "ok", "leaves nlserver out"},
		{all + "\n-a never,exit -S all -F exe=" + program, "warning", all},
		{"-a never,exit -F arch=b32 -S execve -F exe=" + program + "\n" + all, "warning", all},
	} {
		for text := range strings.Lines(x.rules) {
			rule(text)
		}
		doctor(w, 0).must(t, "auditd", x.level, x.says)
		remove()
	}

	// What doctor says mends it.
	rule(all)
	found := doctor(w, 0).of("auditd")
	_, remedy, _ := strings.Cut(found[0].Remedy, ": -a ")
	remedy, _, _ = strings.Cut(remedy, ";")
	rule("-A " + remedy)
	doctor(w, 0).must(t, "auditd", "ok", "leaves nlserver out")
	remove()

	// Who may not see the rules does not hear that all is well.
	doctor(w, 0, "unshare", "--pid", "--fork", "--mount-proc").must(t, "auditd", "unseen", "a container does not see", "on the container's host")
	doctor(w, 0, "setpriv", "--bounding-set=-audit_control").must(t, "auditd", "unseen", "auditctl -l: exit status 255: ", "Operation not permitted")
}

// Rules of auditd in its files, for who may not ask the kernel, in a copy of /etc that only that doctor sees.
func TestDoctorOfAuditdFiles(t *testing.T) {
	t.Parallel()
	world.NeedsRoot(t)
	if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
		skip.Unable(t, "needs namespaces: "+string(out))
	}
	if pids, err := os.Readlink("/proc/self/ns/pid"); err != nil || pids != "pid:[4026531836]" {
		skip.Unable(t, fmt.Sprintf("needs not to be in a container: %s, %v", pids, err))
	}
	w := world.New(t, container.Options{User: campaignUser})
	program := filepath.Join(w.Home, "bin", "nlserver")
	within := func(setup string) findings {
		t.Helper()
		return doctor(w, 0, "unshare", "--mount", "sh", "-c", `set -e; D="$1"; shift; mkdir -p "$D"; mount -t tmpfs none "$D"; mkdir "$D/u" "$D/w"; `+
			`mount -t overlay none -o "lowerdir=/etc,upperdir=$D/u,workdir=$D/w" /etc; `+
			`rm -rf /etc/audit; mkdir -p /etc/audit/rules.d; cd /etc/audit; `+setup+`; cd /; exec setpriv --reuid=41011 --regid=41011 --clear-groups "$@"`, "sh", w.Path("machine"))
	}
	const all = `echo '-a always,exit -F arch=b64 -S execve -k exec' >rules.d/30-exec.rules; `
	within("rm -r /etc/audit").must(t, "auditd", "ok", "no auditd here")
	within("chmod 0750 /etc/audit").must(t, "auditd", "unseen", "may not read", "sudo -E campaign-credsync doctor")
	within(all+"chmod 0640 rules.d/30-exec.rules").must(t, "auditd", "unseen", "may not read")
	within("echo '-w /etc/passwd -p wa' >audit.rules").must(t, "auditd", "ok", "records no arguments")
	within("echo '-a always,exit -F arch=b64 -S execve -F exe=/usr/bin/true' >audit.rules").must(t, "auditd", "ok", "records no arguments")
	within("echo '-a always,exit -F path="+program+" -F perm=x' >audit.rules").must(t, "auditd", "warning", "/etc/audit records", "-F path="+program)
	within(all+"true").must(t, "auditd", "warning", "-a always,exit -F arch=b64 -S execve -k exec", "exe="+program)
	within(all+"echo '-a never,exit -F arch=b64 -S execve,execveat -F exe="+program+"' >rules.d/11-nlserver.rules").must(t, "auditd", "ok", "leaves nlserver out")
}
