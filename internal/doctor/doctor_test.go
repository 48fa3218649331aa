package doctor

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestChecksAreDocumented: the list that commands.md has of doctor names each check and each level once, and no others.
func TestChecksAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Doctor\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, list, _ := strings.Cut(section, "\n- ")
	var documented, want []string
	for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(list, -1) {
		documented = append(documented, name[1])
	}
	for _, check := range checks {
		want = append(want, check.name)
	}
	for _, level := range Levels {
		want = append(want, string(level))
	}
	slices.Sort(documented)
	slices.Sort(want)
	if !slices.Equal(documented, want) {
		t.Errorf("commands.md names\n%v, and there are\n%v", documented, want)
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
