package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// session is one run that got past the environment check. One goroutine, used
// once.
type session struct {
	home           string
	call           invocation
	assumed        assumptions
	faults         faults // after run: only those that this run suffers from
	log            *runLog
	stdout, stderr io.Writer
}

// run answers one command line and returns the exit code.
func (s *session) run() int {
	var switches faults
	var err error
	if s.assumed, err = loadAssumptions(s.home); err == nil {
		switches, err = loadFaults(s.home)
	}
	if err == nil {
		s.faults, err = switches.forRun(s.home, s.call)
	}
	if err != nil {
		// Loud: a switch mistyped in a test must not pass for good behaviour.
		fmt.Fprintln(s.stderr, "nlserver stand-in:", err)
		s.log.misuse = err.Error()
		return exitMisused
	}
	s.log.faults = s.faults.names()
	if s.faults.IgnoreSigterm {
		ignoreTermination()
	}
	if s.faults.StartDelay > 0 {
		// Silent: the first thing nlserver prints is its banner.
		s.logWaiting("start_delay")
		s.pause(time.Duration(s.faults.StartDelay))
	}
	s.say("Application server for Adobe Campaign Classic (%s) of 12/03/2025", s.version())
	if err := s.misbehaveEarly(); err != nil {
		return s.fail(err)
	}
	if err := s.obey(); errors.Is(err, errNoTask) {
		return s.faults.exitCode(s.faults.NoTaskExit)
	} else if err != nil {
		return s.fail(err)
	}
	if s.faults.Fail == failAfter {
		return s.fail(injected)
	}
	return s.faults.exitCode(s.end(s.call.kind))
}

func (s *session) obey() error {
	c := &s.call
	// What this build does not know, it does not look into further.
	if c.kind == kindSet && !slices.Contains(s.options(), c.option) {
		return &failure{iRcUnknownOption, fmt.Sprintf("Unknown option '-%s'.", c.option)}
	}
	if c.option == "setimsoauth" && c.wrong != nil && len(c.fields) == 2 {
		return &answered{callTooFewFields}
	}
	if c.wrong != nil {
		return c.wrong
	}
	switch c.kind {
	case kindHelp:
		s.help()
	case kindReload:
		if s.faults.ReloadFail {
			return injected
		}
		s.sayAll(callReload)
	case kindRestart:
		if c.instance != "" {
			if _, err := os.Stat(s.instanceFile()); err != nil {
				return &failure{iRcInstance, fmt.Sprintf("Instance '%s' does not exist.", c.instance)}
			}
		}
		if len(s.faults.RestartFail) > 0 {
			return injected
		}
		if s.faults.Modules != "" {
			return s.restartModule(c.modules[0])
		}
		stop, start := s.prints(callRestart), []string(nil)
		if len(stop) > 1 {
			stop, start = stop[:1], stop[1:]
		}
		s.sayLines(stop)
		if s.faults.RestartSlow > 0 {
			s.wait("restart_slow", time.Duration(s.faults.RestartSlow))
		}
		if s.faults.ModuleLines > 0 {
			s.say("Running task '%s' in a new process.", c.modules[0])
		}
		if s.faults.ModuleLines > 0 || s.assumed.Module == moduleChild {
			if err := s.forkModule(); err != nil {
				return err
			}
		}
		s.sayLines(start)
	case kindSet:
		if err := s.setCredential(); err != nil {
			return err
		}
		s.sayAll(callSet)
	}
	return nil
}

// help names the documented options of "nlserver config". The listing itself
// is a guess; that it exists, and that an option is in it, is not.
func (s *session) help() {
	lines := []string{
		"-?                                        this list",
		"-instance:<instance>                      instance that the other options are about",
		"-addinstance:<instance>/<DNS masks>[/<lang>]",
		"-setdblogin:[<rdbms>:]<account>[:<base>][/<password>]@<server>",
		"-internalpassword[:<old>/<new>]",
		"-timezone:<zone>",
		"-postupgrade",
		"-reload                                   reload the configuration of the web module",
	}
	usage := map[string]string{
		"setimsoauth":   "-setimsoauth:<org>/<client>/<technical account>/<secret>",
		"setimsauth":    "-setimsauth:<org>/<client>/<technical account>/<secret>",
		"setimsjwtauth": "-setimsjwtauth:<org>/<client>/<technical account>[/<secret>[/<private key, base64>]]",
	}
	for _, option := range s.options() {
		lines = append(lines, usage[option])
	}
	fmt.Fprintf(s.stdout, "Usage: nlserver config [options]\n  %s\n", strings.Join(lines, "\n  "))
}

func (s *session) instanceFile() string {
	return filepath.Join(s.home, "conf", "config-"+s.call.instance+".xml")
}

// say prints a line as nlserver logs to a console. That errors go to standard
// error and the rest to standard output is a guess.
func (s *session) say(format string, args ...any) {
	logLine(s.stdout, fmt.Sprintf(format, args...))
}

func (s *session) fail(err error) int {
	if a := (*answered)(nil); errors.As(err, &a) {
		for _, line := range s.prints(a.call) {
			logLine(s.stderr, line)
		}
		return s.faults.exitCode(s.end(a.call))
	}
	logLine(s.stderr, err.Error())
	return s.faults.exitCode(exitFailed)
}

func logLine(w io.Writer, text string) {
	fmt.Fprintf(w, "%s >   %s\n", time.Now().Format("15:04:05"), text)
}
