package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"campaign-credsync/internal/auditrules"
)

const (
	auditDir = "/etc/audit"
	inForce  = "auditctl -l"
	// firstPIDs is the kernel's first namespace of processes. Only processes in it see the rules of auditd.
	firstPIDs = "pid:[4026531836]"
)

// auditd looks for rules that record the arguments of nlserver. Whether audit is switched on does not count: auditd does that when it starts.
func (x *examination) auditd(ctx context.Context) []Finding {
	if pids, _ := os.Readlink("/proc/self/ns/pid"); pids != firstPIDs {
		return []Finding{unseen("look on the container's host: "+inForce, "a container does not see the rules of auditd")}
	}
	rules, where, err := auditRules(ctx)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return []Finding{unseen(asRoot, "this user may not read the rules of auditd")}
	case err != nil:
		return []Finding{unseen("see "+inForce, "%s: %v", where, err)}
	case where == "":
		return []Finding{well("no auditd here; that of a container's host is not seen")}
	}
	s := auditrules.StartOf(x.executable(), x.campaignUser())
	records, excludes := s.Judge(rules, where == inForce)
	switch {
	case records != "":
		return []Finding{warn(fmt.Sprintf("put before the other rules, in %s/rules.d/11-nlserver.rules: -a never,exit -F arch=b64 -S execve,execveat -F %s; "+
			"then: augenrules --load", auditDir, s.Filter()), "%s records the arguments of programs, so the secret of each apply: %s", where, records)}
	case excludes != "":
		return []Finding{well("%s leaves nlserver out", where)}
	}
	return []Finding{well("%s records no arguments of nlserver", where)}
}

// auditRules returns the rules in force, or, for who may not ask for them, those in the files. where is empty where there is no auditd.
func auditRules(ctx context.Context) (rules, where string, err error) {
	if auditctl, err := exec.LookPath("auditctl"); err == nil && os.Geteuid() == 0 {
		var out, errs bytes.Buffer
		command := exec.CommandContext(ctx, auditctl, "-l")
		command.Stdout, command.Stderr, command.WaitDelay = &out, &errs, time.Second
		if err := command.Run(); err != nil {
			return "", inForce, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
		}
		return out.String(), inForce, nil
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
