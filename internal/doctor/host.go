package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// hidepid looks at who sees the arguments of nlserver.
func (x *examination) hidepid(context.Context) []Finding {
	mounts, err := readText("/proc/self/mountinfo")
	if err != nil {
		return []Finding{notRead("/proc/self/mountinfo", err)}
	}
	hides := ""
	for line := range strings.Lines(mounts) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); len(fields) < 5 || fields[4] != "/proc" || !strings.HasPrefix(after, "proc ") {
			continue
		}
		hides = "" // the last mount is the one that is seen
		if found := hidepidOption.FindStringSubmatch(after); found != nil {
			hides = found[1]
		}
	}
	if hides == "" || hides == "0" || hides == "off" {
		return []Finding{warn("mount -o remount,hidepid=2 /proc, and the same in /etc/fstab with gid= for monitoring (see docs/hardening.md)",
			"/proc has no hidepid: every local user sees the secret in nlserver's arguments while it is applied")}
	}
	return []Finding{well("/proc has hidepid=%s", hides)}
}

var hidepidOption = regexp.MustCompile(`[ ,]hidepid=(\w+)`)

// Where the rules of auditd are, and its log.
const (
	auditDir = "/etc/audit"
	auditLog = "/var/log/audit/audit.log"
)

// auditd looks for rules that record the arguments of nlserver.
func (x *examination) auditd(ctx context.Context) []Finding {
	nlserver := x.executable()
	remedy := fmt.Sprintf("put before the other rules, in %s/rules.d/11-nlserver.rules: -a never,exit -F arch=b64 -S execve,execveat -F exe=%s; "+
		"then: augenrules --load", auditDir, nlserver)
	rules, where, err := auditRules(ctx)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return []Finding{unseen(asRoot, "this user may not read the rules of auditd")}
	case err != nil:
		return []Finding{unseen("see auditctl -l", "%s: %v", where, err)}
	case where == "":
		return []Finding{well("no auditd here; that of a container's host is not seen")}
	}
	for line := range strings.Lines(rules) {
		if except := exceptRule.FindStringSubmatch(line); except != nil && except[1] == nlserver {
			return []Finding{well("%s leaves nlserver out", where)}
		}
		if recordsExec(line, nlserver, x.campaignUser()) {
			return []Finding{warn(remedy, "%s records the arguments of programs, so the secret of each apply: %s", where, strings.TrimSpace(line))}
		}
	}
	return []Finding{well("%s records no arguments of nlserver", where)}
}

var (
	exceptRule = regexp.MustCompile(`^\s*-[aA]\s+(?:never,exit|exit,never)\s.*-S\s+\S*execve\b.*-F\s+exe=(\S+)`)
	execRule   = regexp.MustCompile(`^\s*-[aA]\s+(?:always,exit|exit,always)\s.*-S\s+(?:\S*,)?(?:execve|execveat|all|59)\b`)
	filterRule = regexp.MustCompile(`\s-[FC]\s+(\w+!?)=(\S+)`)
	watchRule  = regexp.MustCompile(`^\s*-w\s+(\S+)(?:.*-p\s+(\w+))?`)
)

// recordsExec reports whether a rule of auditd records the start of a program by that user.
func recordsExec(rule, program string, uid int) bool {
	if watch := watchRule.FindStringSubmatch(rule); watch != nil {
		inside, err := filepath.Rel(watch[1], program)
		return err == nil && inside != ".." && !strings.HasPrefix(inside, "../") && (watch[2] == "" || strings.Contains(watch[2], "x"))
	}
	if !execRule.MatchString(rule) {
		return false
	}
	for _, filter := range filterRule.FindAllStringSubmatch(rule, -1) {
		if leavesOut(filter[1], filter[2], program, uid) {
			return false
		}
	}
	return true
}

// leavesOut reports whether a filter of a rule (-F field=value, -C field!=field) lets no start of program by that user through. It is for
// those that the usual sets of rules have: starts by root, starts with other rights than the caller's, and failures.
func leavesOut(field, value, program string, uid int) bool {
	switch field {
	case "exe", "path":
		return value != program
	case "uid", "euid", "suid", "fsuid":
		of, err := strconv.Atoi(strings.Replace(value, "root", "0", 1))
		return err == nil && uid >= 0 && of != uid
	case "uid!", "euid!": // -C
		return value == "uid" || value == "euid"
	case "success":
		return value == "0" || value == "no"
	case "exit":
		return strings.HasPrefix(value, "-")
	}
	return false
}

// auditRules returns the rules in force, or, for who may not ask for them, those in the files. where is empty where there is no auditd.
func auditRules(ctx context.Context) (rules, where string, err error) {
	if auditctl, err := exec.LookPath("auditctl"); err == nil && os.Geteuid() == 0 {
		command := exec.CommandContext(ctx, auditctl, "-l")
		command.WaitDelay = time.Second
		if out, err := command.Output(); err == nil {
			return string(out), "auditctl -l", nil
		}
	}
	files, err := filepath.Glob(auditDir + "/rules.d/*.rules")
	if _, statErr := os.Stat(auditDir); errors.Is(statErr, fs.ErrNotExist) {
		return "", "", nil
	}
	if _, openErr := os.ReadDir(auditDir + "/rules.d"); err != nil || openErr != nil && !errors.Is(openErr, fs.ErrNotExist) {
		return "", auditDir, errors.Join(err, openErr)
	}
	for _, file := range append(files, auditDir+"/audit.rules") {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", auditDir, err
		}
		rules += string(text) + "\n"
	}
	return rules, auditDir, nil
}

// executable is the path of nlserver.
func (x *examination) executable() string {
	c := x.Config.Config.Campaign
	if filepath.IsAbs(c.Nlserver) {
		return c.Nlserver
	}
	return filepath.Join(c.Home, c.Nlserver)
}

// maxLog is how much of the end of the audit log is read, in bytes.
const maxLog = 4 << 20

// selinux looks for what it has denied.
func (x *examination) selinux(context.Context) []Finding {
	if enforce, err := readText("/sys/fs/selinux/enforce"); err != nil || enforce != "1" {
		return []Finding{well("SELinux does not enforce anything here")}
	}
	log, err := os.Open(auditLog)
	if err != nil {
		return []Finding{notRead(auditLog, err)}
	}
	defer log.Close()
	if info, err := log.Stat(); err == nil && info.Size() > maxLog {
		log.Seek(-maxLog, io.SeekEnd)
	}
	text, err := io.ReadAll(io.LimitReader(log, maxLog))
	if err != nil {
		return []Finding{notRead(auditLog, err)}
	}
	denials := map[string]int{}
	for _, found := range denial.FindAllSubmatch(text, -1) {
		denials[string(found[1])]++
	}
	var all []Finding
	for _, program := range []string{"nlserver", daemonComm} {
		if n := denials[program]; n > 0 {
			all = append(all, warn("ausearch -m avc -c "+program, "SELinux denied %s something %d times, by the end of %s", program, n, auditLog))
		}
	}
	if len(all) == 0 {
		all = append(all, well("SELinux enforces, and has denied neither nlserver nor the daemon anything, by the end of %s", auditLog))
	}
	return all
}

// daemonComm is the daemon's name as the kernel keeps it: 15 characters.
const daemonComm = "campaign-credsy"

var denial = regexp.MustCompile(`(?m)^.*\bavc:  denied .* comm="(nlserver|` + daemonComm + `)"`)

// What the daemon takes of inotify: an instance for the files of Campaign's instances, one for those of the login, and one for
// credentials in files; watches of some directories each.
const (
	neededInstances = 3
	neededWatches   = 64
)

// inotify looks at whether the limits leave room for the daemon.
func (x *examination) inotify(context.Context) []Finding {
	uid := x.campaignUser()
	if uid < 0 {
		uid = os.Geteuid()
	}
	instances, watches, hidden := inotifyOf(uid)
	var all []Finding
	for _, limit := range []struct {
		name         string
		used, needed int
	}{{"max_user_instances", instances, neededInstances}, {"max_user_watches", watches, neededWatches}} {
		path := "/proc/sys/fs/inotify/" + limit.name
		text, err := readText(path)
		most, convErr := strconv.Atoi(text)
		switch {
		case err != nil || convErr != nil:
			all = append(all, notRead(path, errors.Join(err, convErr)))
		case most-limit.used < limit.needed:
			all = append(all, warn(fmt.Sprintf("sysctl -w fs.inotify.%s=%d, and the same in /etc/sysctl.d", limit.name, max(2*most, limit.used+8*limit.needed)),
				"%s uses %d of fs.inotify.%s=%d; the daemon needs %d, and else looks at files once a second", userName(uid), limit.used, limit.name, most, limit.needed))
		case !hidden:
			all = append(all, well("%s uses %d of fs.inotify.%s=%d", userName(uid), limit.used, limit.name, most))
		default:
			all = append(all, unseen(asRoot, "%s uses at least %d of fs.inotify.%s=%d; this user does not see all", userName(uid), limit.used, limit.name, most))
		}
	}
	return all
}

// inotifyOf counts what the processes of a user have of inotify. hidden says that some of them could not be looked at.
func inotifyOf(uid int) (instances, watches int, hidden bool) {
	for _, p := range processes() {
		if p.uid != uid {
			continue
		}
		descriptors, err := os.ReadDir(p.path("fd"))
		hidden = hidden || errors.Is(err, fs.ErrPermission)
		for _, fd := range descriptors {
			if target, err := os.Readlink(p.path("fd/" + fd.Name())); err != nil || target != "anon_inode:inotify" {
				continue
			}
			instances++
			info, _ := readText(p.path("fdinfo/" + fd.Name()))
			watches += strings.Count(info, "inotify wd:")
		}
	}
	return instances, watches, hidden
}
