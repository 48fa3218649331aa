package nlserver

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"campaign-credsync/internal/credential"
)

// isModule reports whether a process is one of a module: its executable is below Campaign's home, and an argument names the module as
// "nlserver restart" does: pipelined@prod, web. How nlserver's processes name themselves is not public, so that is a guess: where it is
// wrong, a module is not recognised, and nothing is called proven.
func isModule(home, module, executable string, arguments []string) bool {
	if !strings.HasPrefix(executable, home+"/") || len(arguments) < 2 || slices.Contains(notModules, arguments[1]) {
		return false
	}
	named := regexp.MustCompile(`(^|[^\w@-])` + regexp.QuoteMeta(module) + `($|[^\w@-])`)
	return slices.ContainsFunc(arguments[1:], named.MatchString)
}

// notModules are commands of nlserver that name a module and are none.
var notModules = []string{"restart", "start", "stop", "config", "monitor", "pdump"}

// processes are those of a module: "PID began", with the control group of each. Only those that this user may look at are found.
func (b *Binary) processes(module string) (map[string]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	home := b.cfg.Home
	if real, err := filepath.EvalSymlinks(home); err == nil {
		home = real
	}
	found, any := map[string]string{}, false
	for _, e := range entries {
		dir := "/proc/" + e.Name()
		executable, err := os.Readlink(dir + "/exe")
		if err != nil {
			continue // no process, ended, or of another user
		}
		any = true
		arguments, _ := os.ReadFile(dir + "/cmdline")
		if !isModule(home, module, executable, strings.Split(string(arguments), "\x00")) {
			continue
		}
		stat, _ := os.ReadFile(dir + "/stat")
		if began := beganOf(stat); began != "" {
			found[e.Name()+" "+began] = groupOf(dir)
		}
	}
	if !any {
		err = fmt.Errorf("/proc shows no process")
	}
	return found, err
}

// groupOf is the control group of a process, by its directory of /proc; "" if that cannot be told.
func groupOf(dir string) string {
	text, _ := os.ReadFile(dir + "/cgroup")
	of := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			of[parts[1]] = parts[2]
		}
	}
	if unified := of[""]; unified != "" && unified != "/" {
		return unified
	}
	return cmp.Or(of["name=systemd"], of[""]) // where systemd uses the old hierarchies
}

// ourUnit is the control group of the unit that this process is in. It is empty outside of a service of systemd: then a module here
// shares nothing that ends with us.
func ourUnit() string {
	if group := groupOf("/proc/self"); strings.HasSuffix(group, ".service") {
		return group
	}
	return ""
}

// leftFor is our own control group where a module was in another one before its restart: if it is in ours then, it has left Campaign's
// container for a sidecar, with which it ends. Else it is empty.
func leftFor(own string, before map[string]string) string {
	if len(before) == 0 || slices.Contains(slices.Collect(maps.Values(before)), own) {
		return ""
	}
	return own
}

func isWithin(unit, group string) bool {
	return unit != "" && (group == unit || strings.HasPrefix(group, unit+"/"))
}

// InOurGroup names the modules of these steps that run in the control group of our unit.
func (b *Binary) InOurGroup(steps []credential.Step) (modules []string) {
	unit := ourUnit()
	for _, step := range steps {
		if step.Kind != credential.StepRestart || unit == "" || slices.Contains(modules, step.Module) {
			continue
		}
		found, _ := b.processes(step.Module) // without /proc there is no unit either
		for _, group := range found {
			if isWithin(unit, group) {
				modules = append(modules, step.Module)
				break
			}
		}
	}
	return modules
}

// names are the processes, in order.
func names(processes map[string]string) []string {
	return slices.Sorted(maps.Keys(processes))
}
