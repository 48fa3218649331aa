package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"campaign-credsync/internal/lazyregexp"
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
		if found := hidepidOption().FindStringSubmatch(after); found != nil {
			hides = found[1]
		}
	}
	if hides == "" || hides == "0" || hides == "off" {
		return []Finding{warn("mount -o remount,hidepid=2 /proc, and the same in /etc/fstab with gid= for monitoring (see docs/hardening.md)",
			"/proc has no hidepid: every local user sees the secret in nlserver's arguments while it is applied")}
	}
	return []Finding{well("/proc has hidepid=%s", hides)}
}

var hidepidOption = lazyregexp.New(`[ ,]hidepid=(\w+)`)

// executable is the path of nlserver.
func (x *examination) executable() string {
	c := x.Config.Config.Campaign
	if filepath.IsAbs(c.Nlserver) {
		return c.Nlserver
	}
	return filepath.Join(c.Home, c.Nlserver)
}

const (
	auditLog = "/var/log/audit/audit.log"
	maxLog   = 4 << 20 // how much of its end is read, in bytes
)

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
	for _, found := range denial().FindAllSubmatch(text, -1) {
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

var denial = lazyregexp.New(`(?m)^.*\bavc:  denied .* comm="(nlserver|` + daemonComm + `)"`)

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
