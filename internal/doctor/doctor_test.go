package doctor

import (
	"os"
	"strings"
	"testing"
)

// TestChecksAreDocumented: commands.md has a row for each check, and for each level.
func TestChecksAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Doctor\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var rows []string
	for _, check := range checks {
		rows = append(rows, check.name)
	}
	for _, level := range Levels {
		rows = append(rows, string(level))
	}
	for _, row := range rows {
		if strings.Count(section, "\n| `"+row+"` | ") != 1 {
			t.Errorf("the section Doctor of commands.md has no row, or several, for %s", row)
		}
	}
	if found := strings.Count(section, "\n| `"); found != len(rows) {
		t.Errorf("it has %d rows for %d checks and levels", found, len(rows))
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
