package survey

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Module is what a restart did, and where the module runs afterwards.
type Module struct {
	Name         string  `json:"name"`
	Ended        string  `json:"ended"` // the restart
	TookMillis   float64 `json:"took_ms"`
	Runs         string  `json:"runs"` // child (of the restart), elsewhere or not found
	Parent       string  `json:"parent,omitempty"`
	ControlGroup string  `json:"control_group,omitempty"`
	InOurs       bool    `json:"in_our_control_group"`
	Umask        string  `json:"umask,omitempty"`
	HoldsOutput  bool    `json:"holds_output"` // of the restart that started it; it was restarted once more, without one
}

const notFound = "not found"

// moduleTime is how long a module that a watchdog may start is waited for.
const moduleTime = 5 * time.Second

// processes are those of now, each with when it began: /proc/PID -> ticks since the start of the machine.
func processes() map[string]string {
	all := map[string]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		stat, _ := os.ReadFile(dir + "/stat")
		if fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(fields) > 19 && fields[0] != "Z" {
			all[dir] = fields[19]
		}
	}
	return all
}

// find looks for the process of a module that was not there before: one that has the mark in its environment, or one whose program is
// below Campaign's home and that has the module's name among its arguments. How a module shows is not public.
func (m *Module) find(ctx context.Context, home, mark string, before map[string]string) {
	m.Runs = notFound
	if real, err := filepath.EvalSymlinks(home); err == nil {
		home = real
	}
	for deadline := time.Now().Add(moduleTime); ; {
		for dir, began := range processes() {
			if before[dir] == began {
				continue
			}
			if runs := m.isThere(dir, home, mark); runs != "" && m.Runs != "child" {
				m.Runs = runs
				m.look(dir)
			}
		}
		if m.Runs != notFound || time.Now().After(deadline) {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

func (m *Module) isThere(dir, home, mark string) string {
	line, _ := os.ReadFile(dir + "/cmdline")
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if slices.Contains(args, "restart") { // the restart itself
		return ""
	}
	environment, _ := os.ReadFile(dir + "/environ")
	if bytes.Contains(environment, []byte(mark)) {
		return "child"
	}
	if program, _ := os.Readlink(dir + "/exe"); strings.HasPrefix(program, home+"/") && slices.Contains(args[1:], m.Name) {
		return "elsewhere"
	}
	return ""
}

// look notes where a process runs. What cannot be read is left empty.
func (m *Module) look(dir string) {
	group, _ := os.ReadFile(dir + "/cgroup")
	ours, _ := os.ReadFile("/proc/self/cgroup")
	m.ControlGroup, m.InOurs = string(bytes.TrimSpace(group)), len(group) > 0 && bytes.Equal(group, ours)
	status, _ := os.ReadFile(dir + "/status")
	for line := range strings.Lines(string(status)) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), ":"); key {
		case "Umask":
			m.Umask = strings.TrimSpace(value)
		case "PPid":
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%s/comm", strings.TrimSpace(value)))
			m.Parent = string(bytes.TrimSpace(name))
		}
	}
	files, _ := filepath.Glob(dir + "/fd/*")
	m.HoldsOutput = slices.ContainsFunc(files, func(file string) bool {
		target, _ := os.Readlink(file)
		return strings.Contains(target, "memfd:credsync-survey")
	})
}
