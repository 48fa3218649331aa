package doctor

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestChecksAreDocumented: commands.md names each check and each level once, in its section of doctor, and no others.
func TestChecksAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Doctor\n")
	section, _, _ = strings.Cut(section, "\n## ")
	levels, list, _ := strings.Cut(section, "\n- ")
	for _, level := range Levels {
		if strings.Count(levels, "\n| `"+string(level)+"` | ") != 1 {
			t.Errorf("the section Doctor of commands.md has no row, or several, for %s", level)
		}
	}
	if found := strings.Count(levels, "\n| `"); found != len(Levels) {
		t.Errorf("it has %d rows for %d levels", found, len(Levels))
	}
	var documented []string
	for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(list, -1) {
		documented = append(documented, name[1])
	}
	for _, check := range checks {
		if at := slices.Index(documented, check.name); at < 0 {
			t.Errorf("the section Doctor of commands.md does not name %s", check.name)
		} else {
			documented = slices.Delete(documented, at, at+1)
		}
	}
	if len(documented) > 0 {
		t.Errorf("it names what is no check, or names it twice: %v", documented)
	}
}

// TestRecordsExec: which rules of auditd record the arguments of nlserver.
func TestRecordsExec(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]bool{
		"-a always,exit -F arch=b64 -S execve -k exec":                      true,
		"-a always,exit -F arch=b64 -S execve,execveat -F key=exec":         true,
		"-a exit,always -F arch=b32 -S open,execve":                         true,
		"-a always,exit -S all -F uid=1000":                                 true,
		"-a always,exit -F arch=b64 -S 59":                                  true,
		"-w /usr/local/neolane/nl6/bin/nlserver -p x -k nl":                 true,
		"-w /usr/local/neolane -p rwxa":                                     true,
		"-w /usr/local/neolane":                                             true,
		"-w /usr/local/neolane/nl6/conf -p wa":                              false,
		"-w /etc/passwd -p x":                                               false,
		"-w /usr/local/neolane -p wa":                                       false,
		"-a never,exit -F arch=b64 -S execve -F exe=/usr/bin/true":          false,
		"# -a always,exit -S execve":                                        false,
		"-a always,exit -F arch=b64 -S openat -F exit=-EACCES":              false,
		"-a always,exit -F arch=b64 -S adjtimex,settimeofday -k execve-all": false,
		"No rules": false,

		"-a always,exit -F arch=b64 -S execve -C uid!=euid -F euid=0 -k setuid":              false,
		"-a always,exit -F arch=b64 -C euid!=uid -F auid!=unset -S execve -k user_emulation": false,
		"-a always,exit -F arch=b64 -F euid=0 -S execve -k rootcmd":                          false,
		"-a always,exit -F arch=b64 -S execve -F euid=root":                                  false,
		"-a always,exit -F arch=b64 -S execve -F euid=1000":                                  true,
		"-a always,exit -F arch=b64 -S execve -F uid!=0":                                     true,
		"-a always,exit -F arch=b64 -S execve -F exe=/usr/bin/curl":                          false,
		"-a always,exit -F arch=b64 -S execve -F exe=/usr/local/neolane/nl6/bin/nlserver":    true,
		"-a always,exit -F arch=b64 -S execve -F exit=-EACCES":                               false,
		"-a always,exit -F arch=b64 -S execve -F success=0":                                  false,
		"-a always,exit -F arch=b64 -S execve -F auid>=1000 -F auid!=-1 -F key=user":         true,
	} {
		if got := recordsExec(rule, "/usr/local/neolane/nl6/bin/nlserver", 1000); got != want {
			t.Errorf("%q: %v", rule, got)
		}
	}
}
