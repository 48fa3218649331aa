package nlserver

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
)

const (
	lookEvery = 100 * time.Millisecond // for a module that is to come back
	// strangerTime is how long a module is looked for of which no process was seen before: there may be none that can be recognised.
	strangerTime = 2 * time.Second
)

// look is what was seen before a restart.
type look struct {
	before map[string]string
	err    error
}

func (b *Binary) lookBefore(module string) (l look) {
	if b.cfg.Prove {
		l.before, l.err = b.processes(module)
	}
	return l
}

// proveRestart looks for a module that was restarted, until it runs again, until is over or ctx has ended. said is what the restart
// printed.
func (b *Binary) proveRestart(ctx context.Context, module string, l look, said string, until time.Time) credential.Proof {
	switch {
	case noTask(said):
		return credential.Proof{Result: credential.ProofAbsent, Text: "nlserver has no task " + module + " here"}
	case !b.cfg.Prove:
		return credential.Proof{}
	case l.err != nil:
		return credential.Proof{Result: credential.ProofUnknown, Text: fmt.Sprintf("module %s cannot be looked for: %v", module, l.err)}
	}
	before, group := names(l.before), cmp.Or(ourUnit(), leftFor(groupOf("/proc/self"), l.before))
	if limit := time.Now().Add(strangerTime); len(before) == 0 && limit.Before(until) {
		until = limit
	}
	defer countCommand(time.Until(until) + stopGrace)()
	for {
		proof, settled := b.proveOnce(module, before, group)
		if settled || time.Now().After(until) {
			return whereStranger(proof, module)
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return whereStranger(proof, module)
		}
	}
}

// whereStranger says that a module cannot be told from one that is not there, if that is so.
func whereStranger(p credential.Proof, module string) credential.Proof {
	if p.Result == credential.ProofMissing && len(p.Before) == 0 {
		return credential.Proof{Result: credential.ProofUnknown, Text: "no process of module " + module + " was recognised, before its restart or after it"}
	}
	return p
}

// Prove looks once whether a module runs again, in another process than before.
func (b *Binary) Prove(module string, before []string) credential.Proof {
	proof, _ := b.proveOnce(module, before, ourUnit())
	return proof
}

func (b *Binary) proveOnce(module string, before []string, group string) (proof credential.Proof, settled bool) {
	now, err := b.processes(module)
	if err != nil {
		return credential.Proof{Result: credential.ProofUnknown, Text: fmt.Sprintf("module %s cannot be looked for: %v", module, err)}, true
	}
	return judge(module, before, now, group)
}

// judge compares the processes of a module before its restart and now. unit is the control group in which it should not be. settled says
// that time changes nothing.
func judge(module string, before []string, now map[string]string, unit string) (p credential.Proof, settled bool) {
	var kept, inUnit string
	stayed, fresh := 0, 0
	for _, process := range names(now) {
		pid, _, _ := strings.Cut(process, " ")
		if slices.Contains(before, process) {
			kept = pid
			stayed++
			continue
		}
		fresh++
		if isWithin(unit, now[process]) {
			inUnit = pid
		}
	}
	p = credential.Proof{Result: credential.ProofMissing, Before: before}
	switch {
	case len(now) == 0:
		p.Text = "module " + module + " does not run after its restart"
	case fresh == 0 || stayed > 0 && stayed == len(before):
		p.Text = "module " + module + " still runs as process " + kept + ", as before its restart"
	case stayed > 0: // one that is of another module, and has its name? Or one that was not restarted?
		p = credential.Proof{Result: credential.ProofUnknown, Text: "module " + module + " runs anew, and also as process " + kept + ", as before its restart"}
	case inUnit != "":
		p = credential.Proof{Result: credential.ProofUnknown, Text: "module " + module + " runs as process " + inUnit + " in the control group of the daemon"}
	default:
		p = credential.Proof{Result: credential.ProofSeen}
	}
	return p, fresh > 0 && stayed == 0
}

// noTask reports whether a restart said that there is no such module on this instance (Adobe's pipeline-troubleshooting).
func noTask(said string) bool { return strings.Contains(said, "No task corresponds to the mask") }

// roomForOutput is what a restart prints into, of a module that does not run: it may say that there is none. Else, what it prints is not
// read, as the module may inherit it. nil: none.
func (b *Binary) roomForOutput(module string) *os.File {
	if found, err := b.processes(module); err != nil || len(found) > 0 {
		return nil
	}
	memory, _ := boundedMemory("nlserver-restart") // without it, nothing is read
	return memory
}

// boundedMemory is what a restart may print into that nobody reads before its end, and what it starts may go on with for months. It has
// a fixed size: beyond, a write is refused, and neither blocks nor ends the process. Nothing else that can be read does that: a pipe or a
// terminal without a reader ends the module or holds it up, also if the reader is a process of its own, which may be killed; a file grows
// for as long as the module runs. With /dev/null, nobody would see that there is no such module.
func boundedMemory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make room for the output: %w", err)
	}
	memory := os.NewFile(uintptr(fd), "the output of nlserver restart")
	err = memory.Truncate(maxAnswer)
	if err == nil {
		_, err = unix.FcntlInt(memory.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		memory.Close()
		return nil, fmt.Errorf("make room for the output: %w", err)
	}
	return memory, nil
}

// writtenIn is what was printed into it so far.
func writtenIn(memory *os.File) string {
	text, _ := io.ReadAll(io.NewSectionReader(memory, 0, maxAnswer))
	return strings.TrimRight(string(text), "\x00")
}
