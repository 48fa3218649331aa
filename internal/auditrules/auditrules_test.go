package auditrules_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/internal/auditrules"
)

// What rules of auditd do with the arguments of nlserver. The rules with 41999 are as auditctl 3.0.9 prints them, and Linux 6.18 was seen to
// do that with them, where no comment says other, when that user started %H/bin/nlserver: it wrote a record EXECVE, or none.
func TestRulesOfAuditd(t *testing.T) {
	t.Parallel()
	const records, excludes, nothing = "records", "excludes", ""
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(home, "bin"), 0o755),
		os.WriteFile(filepath.Join(home, "bin", "nlserver"), []byte("\x7fELF"), 0o755),
		os.WriteFile(filepath.Join(home, "bin", "script"), []byte("#!/bin/sh"), 0o755),
		os.Symlink("nlserver", filepath.Join(home, "bin", "link")),
		os.Symlink("home", filepath.Join(dir, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	const all = "\n-a always,exit -F arch=b64 -S execve -F uid=41999"
	for _, x := range []struct{ rules, want string }{
		{"No rules", nothing},
		{"# -a always,exit -S execve", nothing},
		{"-D\n-b 8192\n--backlog_wait_time 60000\n-f 1\n-e 2", nothing},
		{"-a always,exit -F arch=b64 -S execve -k exec", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F key=exec", records},
		{"-a always,exit -F arch=b64 -S execve,execveat -F uid=41999", records},
		{"-a always,exit -F arch=b64 -S clone,execve,exit_group -F uid=41999", records},
		{"-a always,exit -F arch=b64 -S open -S execve", records},
		{"-a exit,always -F arch=b64 -S 59", records},
		{"-a always,exit -S execve -F uid=41999", records},
		{"-a always,exit -S all -F uid=41999", records},
		{"-a always,exit -F uid=41999", records}, // as in a file
		{"-a always,exit -Farch=b64 -Sexecve", records},
		{"-a always,exit -F arch=b32 -S execve -F uid=41999", nothing},
		{"-a always,exit -F arch=b64 -S execveat -F uid=41999", nothing},
		{"-a always,exit -F arch=b64 -S openat -F uid=41999", nothing}, // PROCTITLE has 128 bytes of the command line, which end before the secret
		{"-a always,exit -F arch=b64 -S openat -F exit=-EACCES", nothing},
		{"-a always,exit -F arch=b64 -S adjtimex,settimeofday -k execve-all", nothing},
		{"-a always,task -F uid=41999", nothing},

		{"-w %H/bin/nlserver -p x -k nl", records},
		{"-w %H -p x", records},
		{"-w %H/ -p x", records},
		{"-w / -p x", records},
		{"-w %H -p rwxa", records},
		{"-w %H", records}, // as in a file
		{"-w %H -p wa", nothing},
		{"-w %H/bin -p r", nothing},
		{"-w %H/conf -p wa", nothing},
		{"-w %H/bin/nl -p x", nothing},
		{"-w /etc/passwd -p x", nothing},
		{"-a always,exit -S all -F dir=%H -F perm=x -F uid=41999", records},
		{"-a always,exit -S all -F path=%H/bin/nlserver -F perm=x -F uid=41999", records},
		{"-a always,exit -F arch=b64 -F path=%H/bin/nlserver -F perm=x", records}, // as in a file
		{"-a always,exit -S all -F path=%H/bin/nlserver -F perm=wa -F uid=41999", nothing},
		{"-a always,exit -S all -F path=%H/bin/nlserver -F uid=41999", records},
		{"-a always,exit -S all -F dir=%H -F uid=41999", records},
		{"-a always,exit -S all -F dir=/etc/sudoers.d -F perm=wa -F key=actions", nothing},
		{"-a always,exit -F arch=b64 -S execve -F dir=%H", records},
		{"-a always,exit -F arch=b64 -S execve -F dir=/etc -F uid=41999", nothing},
		{"-a always,exit -F arch=b64 -S execve -F path=%H/bin/nlserver", records},
		{"-a always,exit -F arch=b64 -S execve -F perm=wa -F uid=41999", nothing},
		{"-a always,exit -F arch=b64 -S execve -F perm=x -F uid=41999", records},

		{"-w %L -p x", nothing}, // the link itself
		{"-w %L/bin -p x", records},
		{"-w %L/bin/nlserver -p x", records},
		{"-w %H/bin/link -p x", nothing},
		{"-a always,exit -F arch=b64 -S execve -F exe=%L/bin/nlserver", records},

		{"-a always,exit -F arch=b64 -S execve -F uid=41998", nothing},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F uid!=0", records},
		{"-a always,exit -F arch=b64 -S execve -F exe=%H/bin/nlserver -F uid!=41999", nothing},
		{"-a always,exit -F arch=b64 -S execve -F uid>=41000 -F uid<=41999", records},
		{"-a always,exit -F arch=b64 -S execve -F exe=%H/bin/nlserver -F uid>41999", nothing},
		{"-a always,exit -F arch=b64 -S execve -F exe=%H/bin/nlserver -F uid<41999", nothing},
		{"-a always,exit -F arch=b64 -S execve -F euid=0 -F key=rootcmd", nothing},
		{"-a always,exit -F arch=b64 -S execve -F euid=root", nothing},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F success=1", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F success=0", nothing},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F success!=0", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F exit=0", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F exit=-EACCES", nothing},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F exit!=-EACCES", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F exit<0", nothing},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F exit>=0", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F auid>=1000", records},
		// Not that of a service; that of who runs sync without a daemon.
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F auid>=1000 -F auid!=-1", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -C uid!=euid", nothing},
		{"-a always,exit -F arch=b64 -S execve -C uid!=euid -F euid=0 -k setuid", nothing},
		{"-a always,exit -F arch=b64 -C euid!=uid -F auid!=unset -S execve -k user_emulation", nothing},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -C uid=euid", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -C gid!=egid", nothing},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -C uid!=auid", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -C uid!=obj_uid", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F gid=41999", records},
		{"-a always,exit -F arch=b64 -S execve -F uid=41999 -F filetype=32768", records},
		{"-a always,exit -F arch=b64 -S execve -F exe!=%H/bin/nlserver", nothing},

		{"-a never,exit -F arch=b64 -S execve -F exe=/usr/bin/true" + all, records},
		{"-a never,exit -F arch=b64 -S execve,execveat -F exe=%H/bin/nlserver" + all, excludes},
		{"-a never,exit -F exe=%H/bin/nlserver -F arch=b64 -S execve", excludes},
		{"-a never,exit -F arch=b64 -S execve,execveat -F exe=%L/bin/nlserver" + all, excludes},
		{all + "\n-a never,exit -F arch=b64 -S execve,execveat -F exe=%H/bin/nlserver", records},
		{all + "\n-A never,exit -F arch=b64 -S execve,execveat -F exe=%H/bin/nlserver", excludes}, // as in a file
		{"-a never,exit -F arch=b64 -S execve,execveat -F exe=%H/bin/nlserver\n-w %H -p x", excludes},
		{"-w %H -p x\n-a never,exit -F arch=b64 -S execve,execveat -F exe=%H/bin/nlserver", records},
		{"-a never,exit -S all -F exe=%H/bin/nlserver" + all, excludes},
		{"-a never,exit -F arch=b32 -S execve -F exe=%H/bin/nlserver" + all, records},
		{"-a never,exit -F arch=b64 -S execve -F exe=%H/bin/nlserver -F success=0" + all, records},
		{"-a never,exit -F arch=b64 -S execve -F exe=%H/bin/nlserver -F auid=1000" + all, records},
		{"-a never,exit -F arch=b64 -S execve -F exe!=%H/bin/nlserver" + all, records},
		{"-a never,exit -F arch=b64 -S execve -F exe=%H/bin/link" + all, records},
		{"-a never,exit -S all -F uid=41999" + all, excludes},
		{"-a never,exit -S execve -F uid=41999" + all, excludes},
		{"-a never,exit -F arch=b64 -S execve -F path=%H/bin/nlserver" + all, excludes},
		{"-a never,user -F uid=41999" + all, records},
		{"-a never,task" + all, excludes},
		{all + "\n-a task,never", excludes},
		{"-a never,task -F uid=0" + all, records}, // it counts who forks: the daemon is not root
		{all + "\n-a always,exclude -F msgtype=EXECVE", excludes},
		{all + "\n-a never,exclude -F msgtype=EXECVE -F exe=%H/bin/nlserver", excludes},
		{all + "\n-a always,exclude -F msgtype=EXECVE -F uid=41999", excludes},
		{all + "\n-a always,exclude -F msgtype=EXECVE -F uid=41998", records},
		{all + "\n-a always,exclude -F msgtype=SYSCALL", excludes},
		{all + "\n-a always,exclude -F msgtype=CWD", records},
		{all + "\n-a always,exclude -F exe=%H/bin/nlserver", excludes},
	} {
		rules := strings.NewReplacer("%H", home, "%L", filepath.Join(dir, "link")).Replace(x.rules)
		for _, program := range []string{filepath.Join(home, "bin", "nlserver"), filepath.Join(dir, "link", "bin", "link")} {
			for _, listed := range []bool{true, false} {
				if got := judged(auditrules.StartOf(program, 41999), rules, listed); got != x.want {
					t.Errorf("%s, %q, listed %t: %q, want %q", program, rules, listed, got, x.want)
				}
			}
		}
	}

	// The program that a script runs is not known, nor is the user of a home that cannot be looked at.
	script := filepath.Join(home, "bin", "script")
	for _, x := range []struct {
		program     string
		uid         int
		rules, want string
	}{
		{script, 41999, "-a never,exit -F arch=b64 -S execve -F exe=" + script + all, records},
		{script, 41999, "-a never,exit -F arch=b64 -S execve -F uid=41999" + all, excludes},
		{script, -1, all, records},
		{script, -1, "-a never,exit -F arch=b64 -S execve -F uid=41999" + all, records},
	} {
		if got := judged(auditrules.StartOf(x.program, x.uid), x.rules, true); got != x.want {
			t.Errorf("user %d, %q: %q, want %q", x.uid, x.rules, got, x.want)
		}
	}

	// Of another program: auditctl prints exe!= in the same way.
	nlserver := auditrules.StartOf(filepath.Join(home, "bin", "nlserver"), 41999)
	for _, x := range []struct {
		rules  string
		listed bool
		want   string
	}{
		{"-a always,exit -F arch=b64 -S execve -F exe=/usr/bin/curl", true, records},
		{"-a always,exit -F arch=b64 -S execve -F exe=/usr/bin/curl", false, nothing},
		{"-a always,exit -F arch=b64 -S execve -F exe!=/usr/bin/curl", false, records},
		{"-a never,exit -F arch=b64 -S execve -F exe=/usr/bin/curl" + all, false, records},
		{"-a never,exit -F arch=b64 -S execve -F exe!=/usr/bin/curl" + all, false, excludes},
	} {
		if got := judged(nlserver, x.rules, x.listed); got != x.want {
			t.Errorf("%q, listed %t: %q, want %q", x.rules, x.listed, got, x.want)
		}
	}

	for program, want := range map[string]string{script: "uid=41999", filepath.Join(dir, "link", "bin", "link"): "exe=" + filepath.Join(home, "bin", "nlserver")} {
		if got := auditrules.StartOf(program, 41999).Filter(); got != want {
			t.Errorf("%s: %q, want %q", program, got, want)
		}
	}
}

// judged says what the rule that Judge returns does.
func judged(s auditrules.Start, rules string, listed bool) string {
	records, excludes := s.Judge(rules, listed)
	switch {
	case records != "" && excludes != "":
		return "both"
	case records != "":
		return "records"
	case excludes != "":
		return "excludes"
	}
	return ""
}
