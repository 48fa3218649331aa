package soak_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// figures are what a soak counted and measured.
type figures struct {
	mu     *sync.Mutex
	faults map[string]int

	edits, reverts, brakes, excused, quiet int
	runs, damages                          int // of nlserver; of these, such as damage
	runTime, damageTime                    time.Duration
	heal                                   time.Duration // the longest, from the last fault to in sync

	// At quiet points.
	resident, descriptors, threads []int
	goroutines                     []int // at each SIGQUIT; the last is that of a fresh daemon
	lines                          int   // of the log
	state                          int   // bytes, the most
}

func (f *figures) count(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[name]++
}

// of counts faults by what their name begins with.
func (f figures) of(prefixes ...string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, times := range f.faults {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			n += times
		}
	}
	return n
}

// logged counts the lines of a log; a goroutine dump is not counted.
func (f *figures) logged(text string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, " level=") {
			f.lines++
		}
	}
}

// measure looks at the daemon's process and what it keeps.
func (f *figures) measure(s *soak) {
	proc := filepath.Join("/proc", strconv.Itoa(s.Running.PID()))
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	s.Must(err)
	f.resident = append(f.resident, field(string(status), "VmRSS:"))
	f.threads = append(f.threads, field(string(status), "Threads:"))
	f.descriptors = append(f.descriptors, len(s.list(filepath.Join(proc, "fd"))))
	size := 0
	for _, e := range s.list(s.StateDir()) {
		if info, err := e.Info(); err == nil && !strings.HasPrefix(e.Name(), "history.jsonl") { // which has a bound of its own
			size += int(info.Size())
		}
	}
	f.state = max(f.state, size)
}

func field(status, key string) int {
	_, rest, _ := strings.Cut(status, key)
	n, _ := strconv.Atoi(strings.Fields(rest)[0])
	return n
}

// The bounds. Growth can show only in a daemon that lasts, and after enough quiet points.
const (
	mostResident    = 64 << 10 // KiB
	mostDescriptors = 40
	mostThreads     = 24
	mostGoroutines  = 64 // at a SIGQUIT, while others may ask at the control socket
	mostGrown       = 6  // descriptors and threads; goroutines of the daemon that lasts
	mostState       = 64 << 10
	mostLines       = 12 // a fault or revert
)

// judge prints the bounds as a table, and demands that they hold.
func (f *figures) judge(s *soak) {
	s.T.Helper()
	happened := f.of("") + f.reverts
	fresh := f.goroutines[len(f.goroutines)-1]
	var table strings.Builder
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "what\tis\tbound")
	row := func(what string, is, bound int) {
		verdict := ""
		if is > bound {
			verdict = "\tEXCEEDED"
			s.T.Errorf("%s: %d, more than %d", what, is, bound)
		}
		fmt.Fprintf(out, "%s\t%d\t%d%s\n", what, is, bound, verdict)
	}
	row("resident, most, KiB", slices.Max(f.resident), mostResident)
	row("descriptors, most", slices.Max(f.descriptors), mostDescriptors)
	row("threads, most", slices.Max(f.threads), mostThreads)
	row("goroutines, most", slices.Max(f.goroutines), mostGoroutines)
	if s.lasting {
		row("goroutines at the end", slices.Max(f.goroutines), fresh+mostGrown)
	}
	row("state directory, most, bytes", f.state, mostState)
	row("lines of log", f.lines, mostLines*happened)
	if third := len(f.resident) / 3; s.lasting && third >= 3 {
		first, last := median(f.resident[:third]), median(f.resident[len(f.resident)-third:])
		row("resident, last third, KiB", last, first*13/10+2<<10)
		first, last = median(f.descriptors[:third]), median(f.descriptors[len(f.descriptors)-third:])
		row("descriptors, last third", last, first+mostGrown)
		first, last = median(f.threads[:third]), median(f.threads[len(f.threads)-third:])
		row("threads, last third", last, first+mostGrown)
	}
	out.Flush()
	var names strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.faults)) {
		fmt.Fprintf(&names, "%5d %s\n", f.faults[name], name)
	}
	s.T.Logf("%s\n%s\n%s", f, &table, &names)
}

func median(all []int) int {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func (f *figures) add(g figures) {
	if f.mu == nil {
		f.mu, f.faults = new(sync.Mutex), map[string]int{}
	}
	for name, n := range g.faults {
		f.faults[name] += n
	}
	f.edits, f.reverts, f.brakes, f.excused = f.edits+g.edits, f.reverts+g.reverts, f.brakes+g.brakes, f.excused+g.excused
	f.quiet, f.runs, f.damages, f.lines = f.quiet+g.quiet, f.runs+g.runs, f.damages+g.damages, f.lines+g.lines
	f.runTime, f.damageTime = f.runTime+g.runTime, f.damageTime+g.damageTime
	f.heal, f.state = max(f.heal, g.heal), max(f.state, g.state)
	f.resident, f.descriptors = append(f.resident, g.resident...), append(f.descriptors, g.descriptors...)
	f.threads, f.goroutines = append(f.threads, g.threads...), append(f.goroutines, g.goroutines...)
}

func (f figures) String() string {
	most := func(all []int) int { return slices.Max(append([]int{0}, all...)) }
	nlserver := f.of("nlserver")
	return fmt.Sprintf("%d rotations, %d edits, %d reverts, %d crashes, %d restarts and reloads, %d outages of Vault, %d nlserver faults, "+
		"%d other faults, %d brakes, losses 0 (%d in %d runs of nlserver, %v, and %d damages by it, %v); in sync again within %v at %d quiet points; "+
		"resident at most %d KiB, %d descriptors, %d threads, %d goroutines, state %d bytes, %d lines of log",
		f.of("rotation", "refused")+nlserver, f.edits, f.reverts, f.of("kill", "SIGQUIT"), f.of("SIGTERM", "SIGHUP"), f.of("Vault"), nlserver,
		f.of("")-f.of("rotation", "refused", "nlserver", "kill", "SIGQUIT", "SIGTERM", "SIGHUP", "Vault"), f.brakes, f.excused, f.runs,
		f.runTime.Round(time.Millisecond), f.damages, f.damageTime.Round(time.Second), f.heal.Round(time.Millisecond), f.quiet,
		most(f.resident), most(f.descriptors), most(f.threads), most(f.goroutines), f.state, f.lines)
}
