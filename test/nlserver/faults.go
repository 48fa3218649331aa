package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"
)

// faults is what faults.json may say. A file is used because the daemon under
// test controls arguments and environment. No file means no faults.
type faults struct {
	// How this build of nlserver is made: holds for every run.
	Options       []string `json:"options"` // set options it knows; nil: those that are assumed
	StartDelay    duration `json:"start_delay"`
	Deterministic bool     `json:"deterministic"`
	Reformat      bool     `json:"reformat"`
	OrgAttribute  string   `json:"org_attribute"`
	OddSpelling   bool     `json:"odd_spelling"`
	Modules       string   `json:"modules"` // who starts modules; "": there are none

	// What goes wrong in the kinds of runs that On names.
	Fail          string   `json:"fail"` // before or after the work is done
	ExitCode      *int     `json:"exit_code"`
	Die           bool     `json:"die"` // SIGKILL where it would have exited
	Hang          bool     `json:"hang"`
	IgnoreSigterm bool     `json:"ignore_sigterm"`
	PrintSecret   bool     `json:"print_secret"`
	PrintPieces   bool     `json:"print_pieces"`
	PrintBytes    int      `json:"print_bytes"`
	ForkChild     duration `json:"fork_child"`

	// What goes wrong while the instance file is written.
	WriteDelay        duration `json:"write_delay"`
	HangAfterTruncate bool     `json:"hang_after_truncate"`
	NoWrite           bool     `json:"no_write"`
	WriteHalf         bool     `json:"write_half"`
	WriteEmpty        bool     `json:"write_empty"`
	Garbage           bool     `json:"garbage"`

	// What goes wrong in activation.
	ReloadFail  bool     `json:"reload_fail"`
	RestartFail []string `json:"restart_fail"` // "web", "pipelined" or "pipelined@prod"
	RestartSlow duration `json:"restart_slow"` // from the stop of the module to its start
	ModuleLines int      `json:"module_lines"` // that the module prints, as a child of its restart
	ModuleLost  bool     `json:"module_lost"`  // it is stopped and not started
	NoTaskExit  int      `json:"no_task_exit"` // exit code where the module does not run

	// Which runs suffer.
	On      []string `json:"on"`       // kinds of runs; nil: set
	OnlyFor []string `json:"only_for"` // instances; nil: all, and runs that name none
	Times   int      `json:"times"`    // only the first so many; 0: every one
}

const (
	failBefore = "before"
	failAfter  = "after"
)

// injected is what a run says that fails only because a switch made it.
var injected = &failure{iRcInjected, "Operation failed."}

// duration is "2s" in JSON.
type duration time.Duration

func (d *duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("a duration is written as a string such as \"2s\", not %s", text)
	}
	parsed, err := time.ParseDuration(s)
	if err == nil && parsed < 0 {
		err = fmt.Errorf("negative duration %q", s)
	}
	*d = duration(parsed)
	return err
}

func faultsFile(home string) string { return filepath.Join(standinDir(home), "faults.json") }

// releasedFile, where it is there, ends every wait of a run. New switches remove it.
func releasedFile(home string) string { return filepath.Join(standinDir(home), "released") }

func loadFaults(home string) (faults, error) {
	text, err := os.ReadFile(faultsFile(home))
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte("{}"), nil
	}
	if err != nil {
		return faults{}, err
	}
	return parseFaults(text)
}

// parseFaults is strict: an unknown key is an error.
func parseFaults(text []byte) (faults, error) {
	var f faults
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return faults{}, fmt.Errorf("faults.json: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return faults{}, errors.New("faults.json: something follows the object")
	}
	if f.On == nil {
		f.On = []string{kindSet}
	}
	if err := f.check(); err != nil {
		return faults{}, fmt.Errorf("faults.json: %w", err)
	}
	return f, nil
}

func (f *faults) check() error {
	if i := slices.IndexFunc(f.Options, func(o string) bool { return !slices.Contains(setOptions, o) }); i >= 0 {
		return fmt.Errorf("options: %q is none of %v", f.Options[i], setOptions)
	}
	kinds := []string{kindSet, kindReload, kindRestart, kindHelp}
	if i := slices.IndexFunc(f.On, func(k string) bool { return !slices.Contains(kinds, k) }); i >= 0 {
		return fmt.Errorf("on: %q is none of %v", f.On[i], kinds)
	}
	modules := slices.Concat(multiInstance, monoInstance)
	for _, name := range f.RestartFail {
		if module, _, _ := strings.Cut(name, "@"); !slices.Contains(modules, module) {
			return fmt.Errorf("restart_fail: %q is none of %v", name, modules)
		}
	}
	if !slices.Contains([]string{"", modulesChild, modulesWatchdog}, f.Modules) {
		return fmt.Errorf("modules: %q is neither %q nor %q", f.Modules, modulesChild, modulesWatchdog)
	}
	if f.NoTaskExit < 0 || f.NoTaskExit > 255 {
		return fmt.Errorf("no_task_exit: %d is not between 0 and 255", f.NoTaskExit)
	}
	if f.Fail != "" && f.Fail != failBefore && f.Fail != failAfter {
		return fmt.Errorf("fail: %q is neither %q nor %q", f.Fail, failBefore, failAfter)
	}
	if f.ExitCode != nil && (*f.ExitCode < 0 || *f.ExitCode > 255) {
		return fmt.Errorf("exit_code: %d is not between 0 and 255", *f.ExitCode)
	}
	if f.PrintBytes < 0 || f.Times < 0 || f.ModuleLines < 0 {
		return errors.New("print_bytes, times, module_lines: must not be negative")
	}
	writes := 0
	for _, on := range []bool{f.NoWrite, f.WriteHalf, f.WriteEmpty, f.Garbage} {
		if on {
			writes++
		}
	}
	if writes > 1 {
		return errors.New("no_write, write_half, write_empty, garbage: only one of them")
	}
	return nil
}

// forRun keeps the faults that this run suffers from, and counts it when there
// are any and "times" sets a limit.
func (f faults) forRun(home string, call invocation) (faults, error) {
	spared := faults{
		Options: f.Options, StartDelay: f.StartDelay,
		Deterministic: f.Deterministic, Reformat: f.Reformat, OrgAttribute: f.OrgAttribute, OddSpelling: f.OddSpelling,
		Modules: f.Modules,
	}
	hit := spared
	if f.OnlyFor != nil && !slices.Contains(f.OnlyFor, call.instance) {
		return spared, nil
	}
	if slices.Contains(f.On, call.kind) {
		hit.Fail, hit.ExitCode, hit.Die = f.Fail, f.ExitCode, f.Die
		hit.Hang, hit.IgnoreSigterm = f.Hang, f.IgnoreSigterm
		hit.PrintSecret, hit.PrintPieces, hit.PrintBytes = f.PrintSecret, f.PrintPieces, f.PrintBytes
		hit.ForkChild = f.ForkChild
	}
	switch call.kind {
	case kindSet:
		hit.WriteDelay, hit.HangAfterTruncate = f.WriteDelay, f.HangAfterTruncate
		hit.NoWrite, hit.WriteHalf, hit.WriteEmpty, hit.Garbage = f.NoWrite, f.WriteHalf, f.WriteEmpty, f.Garbage
	case kindReload:
		hit.ReloadFail = f.ReloadFail
	case kindRestart:
		hit.RestartSlow, hit.ModuleLines = f.RestartSlow, f.ModuleLines
		hit.ModuleLost, hit.NoTaskExit = f.ModuleLost, f.NoTaskExit
		for _, name := range f.RestartFail {
			if slices.ContainsFunc(call.modules, func(m string) bool { return m == name || strings.HasPrefix(m, name+"@") }) {
				hit.RestartFail = append(hit.RestartFail, name)
			}
		}
	}
	if f.Times == 0 || reflect.DeepEqual(hit, spared) {
		return hit, nil
	}
	earlier, err := countRun(home)
	if err != nil || earlier >= f.Times {
		return spared, err
	}
	return hit, nil
}

// countRun returns how many runs suffered before, under the faults.json that is
// there now: writing that file again starts a new count. Runs that overlap
// are told apart by a lock.
func countRun(home string) (earlier int, err error) {
	info, err := os.Stat(faultsFile(home))
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(faultsFile(home))
	if err != nil {
		return 0, err
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	generation := fmt.Sprintf("%x-%d-%d", sha256.Sum256(text), inode, info.ModTime().UnixNano())

	file, err := os.OpenFile(filepath.Join(standinDir(home), "faults.count"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return 0, err
	}
	var counted string
	if n, _ := fmt.Fscanf(file, "%s %d", &counted, &earlier); n != 2 || counted != generation {
		earlier = 0
	}
	if err := file.Truncate(0); err != nil {
		return 0, err
	}
	_, err = file.WriteAt(fmt.Appendf(nil, "%s %d\n", generation, earlier+1), 0)
	return earlier, err
}

// names lists the switches that are on, as faults.json spells them.
func (f *faults) names() []string {
	var names []string
	value := reflect.ValueOf(*f)
	for i := range value.NumField() {
		name := value.Type().Field(i).Tag.Get("json")
		if !value.Field(i).IsZero() {
			names = append(names, name)
		}
	}
	return names
}

func (f *faults) exitCode(implied int) int {
	if f.ExitCode != nil {
		return *f.ExitCode
	}
	return implied
}
