// Command nlserver stands in for the nlserver of Adobe Campaign Classic v7,
// which is proprietary and not to be had for tests. It answers the few
// commands that the daemon runs, edits the instance file in place, keeps a log
// of its runs, and misbehaves in the ways a test asks for.
//
// Where Adobe's documentation is silent it guesses; README.md tells what is
// documented and what is not. A test that passes here has not met the real
// nlserver. Nothing of the rest of the project is imported, so that the daemon
// and its counterpart cannot share a mistake.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Exit codes that no fault was asked for. No contract for nlserver's own is
// public; 127 is what the shell and the dynamic linker use, 64 and 78 are
// those of sysexits.h and always mean a mistake in the use of the stand-in.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 64
	exitMisused   = 78
	exitNoLibrary = 127
)

func main() {
	started := time.Now()
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "--standin-") {
		os.Exit(runTool(os.Args[1], os.Args[2:], os.Stdout, os.Stderr))
	}
	os.Exit(serve(started))
}

// serve is one run as nlserver: log the start, refuse a wrong environment,
// load the faults, do what the arguments say, log the end.
func serve(started time.Time) int {
	home, err := ownHome(os.Args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "nlserver stand-in:", err)
		return exitMisused
	}
	call := parseArguments(os.Args[1:])
	log := newRunLog(home, started, call, environmentReady(home))
	if err := log.start(); err != nil {
		// Tests count runs; a run that cannot be counted must not happen.
		fmt.Fprintln(os.Stderr, "nlserver stand-in: run log:", err)
		return exitMisused
	}

	s := &session{home: home, call: call, log: log, stdout: os.Stdout, stderr: os.Stderr}
	code := exitNoLibrary
	if log.environmentReady {
		code = s.run()
	} else {
		// Worded like the dynamic linker, which is what would refuse.
		fmt.Fprintf(s.stderr, "%s: error while loading shared libraries: libnlserver-standin.so: "+
			"cannot open shared object file: No such file or directory\n", os.Args[0])
	}
	if s.faults.Die {
		dieNow()
	}
	if err := log.end(code); err != nil {
		fmt.Fprintln(os.Stderr, "nlserver stand-in: run log:", err)
		return exitMisused
	}
	return code
}

// ownHome is the <home> of <home>/bin/nlserver, by the name it was called. A
// link is not followed: a home whose bin/nlserver points to one shared
// executable is still the home that was meant.
func ownHome(calledAs string) (string, error) {
	path := calledAs
	if !strings.Contains(path, "/") {
		if found, err := exec.LookPath(path); err == nil {
			path = found
		}
	}
	// argv[0] is only what the caller claims.
	if !sameFile(path, "/proc/self/exe") {
		if own, err := os.Executable(); err == nil { // not to be known without /proc
			path = own
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	bin := filepath.Dir(path)
	home := filepath.Dir(bin)
	if _, err := os.Stat(filepath.Join(home, "conf")); err != nil || filepath.Base(bin) != "bin" {
		return "", fmt.Errorf("%s is not <home>/bin/nlserver of a Campaign home; make one with --standin-layout", path)
	}
	return home, nil
}

// environmentReady tells whether env.sh was sourced: without it the real
// nlserver does not find its libraries.
func environmentReady(home string) bool {
	lib := filepath.Join(home, "lib")
	for _, dir := range filepath.SplitList(os.Getenv("LD_LIBRARY_PATH")) {
		if dir != "" && (filepath.Clean(dir) == lib || sameFile(dir, lib)) {
			return true
		}
	}
	return false
}

func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errors.Join(errA, errB) == nil && os.SameFile(infoA, infoB)
}
