package doctor

import (
	"os"
	"strconv"
	"strings"
)

// process is one process as /proc shows it. Its arguments are never read: they may hold a secret.
type process struct {
	pid, parent, uid int
	comm             string
}

func (p process) path(name string) string { return "/proc/" + strconv.Itoa(p.pid) + "/" + name }

// processes are all that this user may see.
func processes() (all []process) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := processOf(pid); ok {
				all = append(all, p)
			}
		}
	}
	return all
}

// processOf is not ok where there is none, or this user may not see it.
func processOf(pid int) (p process, ok bool) {
	p.pid = pid
	status, err := readText(p.path("status"))
	if err != nil {
		return p, false
	}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch name {
		case "Name":
			p.comm = strings.TrimSpace(value)
		case "PPid":
			p.parent, _ = strconv.Atoi(fields[0])
		case "Uid":
			p.uid, err = strconv.Atoi(fields[0])
			ok = err == nil
		}
	}
	return p, ok
}
