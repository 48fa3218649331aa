package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Who starts a module that is restarted: which of the two it is with the real
// nlserver is not public.
const (
	modulesChild    = "child"    // the restart, as a descendant of its own that it detaches
	modulesWatchdog = "watchdog" // a process that runs already (--standin-watchdog)
)

// moduleTimeout is how long a module may take to stop or to start.
const moduleTimeout = 30 * time.Second

// errNoTask says that there was no module to be restarted.
var errNoTask = errors.New("no task corresponds to the mask")

func modulesDir(home string) string { return filepath.Join(standinDir(home), "modules") }

// restartModule stops the process of a module and has another one started.
func (s *session) restartModule(name string) error {
	if modulePID(s.home, name) == 0 {
		s.say("No task corresponds to the mask %s", name)
		return errNoTask
	}
	s.say("Stop of module '%s' requested.", name)
	if err := stopModule(s.home, name); err != nil {
		return err
	}
	if s.faults.RestartSlow > 0 {
		s.wait("restart_slow", time.Duration(s.faults.RestartSlow))
	}
	if s.faults.ModuleLost {
		return nil
	}
	s.say("Running task '%s' in a new process.", name)
	if s.faults.Modules == modulesWatchdog {
		if err := os.WriteFile(filepath.Join(modulesDir(s.home), name+".start"), nil, 0o644); err != nil {
			return err
		}
	} else if err := s.detachModule(name); err != nil {
		return err
	}
	if !soon(func() bool { return modulePID(s.home, name) != 0 }) {
		return fmt.Errorf("module '%s' does not start", name)
	}
	s.say("Module '%s' started.", name)
	return nil
}

// stopModule ends the process of a module, if it runs.
func stopModule(home, name string) error {
	old := modulePID(home, name)
	if old == 0 {
		return nil
	}
	if err := syscall.Kill(old, syscall.SIGTERM); err != nil {
		return err
	}
	if !soon(func() bool { return modulePID(home, name) == 0 }) {
		return fmt.Errorf("module '%s' does not stop", name)
	}
	return nil
}

// detachModule starts a module with what this run inherited, in a session of its
// own.
func (s *session) detachModule(name string) error {
	module, err := moduleCommand(s.home, name, s.faults.ModuleLines)
	if err != nil {
		return err
	}
	module.Stdin, module.Stdout, module.Stderr = os.Stdin, os.Stdout, os.Stderr
	module.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := module.Start(); err != nil {
		return err
	}
	return s.log.child(module.Process.Pid)
}

func moduleCommand(home, name string, lines int) (*exec.Cmd, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.Command(own, "--standin-module", home, name, strconv.Itoa(lines)), nil
}

// beWatchdog starts modules, and each that a restart asks for, until it is
// killed.
func beWatchdog(home string, modules []string) error {
	if err := os.MkdirAll(modulesDir(home), 0o755); err != nil {
		return err
	}
	for {
		for _, name := range modules {
			module, err := moduleCommand(home, name, 0)
			if err != nil {
				return err
			}
			if err := module.Start(); err != nil {
				return err
			}
			go module.Wait()
		}
		modules = nil
		time.Sleep(10 * time.Millisecond)
		asked, _ := filepath.Glob(filepath.Join(modulesDir(home), "*.start"))
		for _, file := range asked {
			if os.Remove(file) == nil {
				modules = append(modules, strings.TrimSuffix(filepath.Base(file), ".start"))
			}
		}
	}
}

func pidFile(home, name string) string { return filepath.Join(modulesDir(home), name+".pid") }

// writeModulePID tells which process is the module.
func writeModulePID(home, name string) error {
	if err := os.MkdirAll(modulesDir(home), 0o755); err != nil {
		return err
	}
	return replaceFile(pidFile(home, name), []byte(strconv.Itoa(os.Getpid())), 0o644)
}

// modulePID is the process of a module; 0: it does not run.
func modulePID(home, name string) int {
	text, _ := os.ReadFile(pidFile(home, name))
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return 0
	}
	arguments, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !bytes.Contains(arguments, []byte("\x00--standin-module\x00")) || !bytes.Contains(arguments, []byte("\x00"+name+"\x00")) {
		return 0
	}
	return pid
}

func soon(so func() bool) bool {
	for end := time.Now().Add(moduleTimeout); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if so() {
			return true
		}
	}
	return false
}
